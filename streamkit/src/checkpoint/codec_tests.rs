//! Tests of `codec`, in a file of their own because of its length.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::manifest::{Confirmed, Fact, PlanStep, SplitEntry, Totals};
use crate::error::ErrorKind;
use crate::record::{Position, Split, SplitId};
use crate::state::Change;
use crate::testing::fuzz;
use crate::time::Timestamp;

fn decode(bytes: &[u8]) -> Result<Checkpoint> {
    super::decode(&Bytes::copy_from_slice(bytes))
}

fn checkpoint() -> Checkpoint {
    let at = Timestamp::from_micros;
    let split =
        Split { id: SplitId::new("t/0"), topic: Arc::from("t"), partition: 0, memo: String::new() };
    let position =
        Position { next: 5, high: Some(at(9)), floor: None, read: 5, accepted: 4, told: 0 };
    let totals = Totals { dead: BTreeMap::from([("json".into(), 1)]), ..Totals::default() };
    Checkpoint {
        manifest: Manifest {
            format: 1,
            job: "job".into(),
            lineage: "abc".into(),
            number: 7,
            base: 6,
            created: at(1_000),
            plan: vec![PlanStep { name: "n".into(), kind: "k".into(), parameters: "p".into() }],
            splits: vec![SplitEntry { split, position, start: 0, totals }],
            idle: vec![SplitId::new("t/1")],
            facts: vec![Fact::Idle { split: SplitId::new("t/1"), at: 7 }],
            facts_through: 1,
            watermark: at(8),
            confirmed: BTreeMap::from([(
                "sink".into(),
                Confirmed { w: Some(at(7)), has_progress: true },
            )]),
            counted: BTreeMap::from([("n".into(), 4)]),
        },
        changes: vec![
            (
                "n".into(),
                [
                    Change::Put { group: 3, key: b"key", value: &[7; 200] },
                    Change::Delete { group: 255, key: &[] },
                    Change::DeletePrefix { groups: (0, 127), prefix: b"p" },
                ]
                .into_iter()
                .collect(),
            ),
            ("m".into(), Changes::default()),
        ],
    }
}

/// Format version 1. If this test fails, checkpoints that were written before can no longer be
/// read: do not change what it expects, add a version.
#[test]
fn the_bytes_are_those_of_format_1() {
    let header = concat!(
        r#"{"format":1,"job":"job","lineage":"abc","number":7,"base":6,"created":1000,"#,
        r#""plan":[{"name":"n","kind":"k","parameters":"p"}],"#,
        r#""splits":[{"split":{"id":"t/0","topic":"t","partition":0,"memo":""},"#,
        r#""position":{"next":5,"high":9,"floor":null,"read":5,"accepted":4},"start":0,"#,
        r#""totals":{"dead":{"json":1},"late":{},"wanted":{}}}],"#,
        r#""idle":["t/1"],"facts":[{"fact":"idle","split":"t/1","at":7}],"facts_through":1,"#,
        r#""watermark":8,"confirmed":{"sink":{"w":7,"has_progress":true}},"counted":{"n":4}}"#,
    );
    let golden = [
        b"SKCP\x01\0\0\0\xe3\x01\0\0\x02\0\0\0\x94\x8a\x4c\xb2".as_slice(),
        header.as_bytes(),
        b"\x27\xe2\x06\x11",
        b"\xdb\0\0\0\0\0\0\0\x01n\x03\0\x03\x03key\xc8\x01",
        &[7; 200],
        b"\x01\xff\0\x02\0\x7f\x01p\xd0\xe4\x2e\x63",
        b"\x03\0\0\0\0\0\0\0\x01m\0\xf6\xf8\xa9\xedPCKS",
    ]
    .concat();
    let encoded = encode(&checkpoint()).unwrap();
    assert_eq!(encoded.escape_ascii().to_string(), golden.escape_ascii().to_string());
    assert_eq!(decode(&golden).unwrap(), checkpoint());
}

#[test]
fn the_header_can_be_read_alone() {
    let bytes = encode(&checkpoint()).unwrap();
    let header = header_bytes(&bytes[..PREAMBLE]).unwrap();
    assert_eq!(decode_manifest(&bytes[..header]).unwrap(), checkpoint().manifest);
    assert!(decode_manifest(&bytes[..header - 1]).is_err());
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = encode(&checkpoint()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&damaged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}");
    }
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(decode(&[bytes.as_slice(), b"\0"].concat()).is_err(), "something after the end");
}

#[test]
fn a_block_of_another_checkpoint_is_found() {
    let mut other = checkpoint();
    other.manifest.number = 8;
    let (bytes, other) = (encode(&checkpoint()).unwrap(), encode(&other).unwrap());
    let header = header_bytes(&bytes).unwrap();
    assert!(decode(&[&bytes[..header], &other[header..]].concat()).is_err());
}

#[test]
fn a_later_format_is_not_called_damaged() {
    let mut bytes = encode(&checkpoint()).unwrap();
    bytes[4] = 2;
    let crc = crc32c_append(0, &bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    let error = decode(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("format 2"), "{error}");
}

/// Format version 1 of a fact; the same holds as for a checkpoint.
#[test]
fn a_fact_is_a_line_that_a_person_can_read() {
    let golden = concat!(
        r#"{"format":1,"job":"job","number":12,"content":{"fact":"idle","split":"t/1","at":7}}"#,
        "\ncrc32c 2839c5fa\n"
    );
    let fact = Fact::Idle { split: SplitId::new("t/1"), at: 7 };
    let bytes = encode_fact("job", 12, &fact).unwrap();
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), golden);
    let stored = decode_fact(&bytes).unwrap();
    assert_eq!((stored.job.as_str(), stored.number, stored.content), ("job", 12, fact));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_fact(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert_eq!(decode_fact(&bytes[..length]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

fn changes() -> impl Strategy<Value = Vec<(String, Changes)>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let change = (0..3u8, any::<(u8, u8)>(), bytes(), bytes());
    let changes = proptest::collection::vec(change, 0..20).prop_map(|changes| -> Changes {
        let each = changes.iter();
        each.map(|(tag, groups, key, value)| one_change(*tag, *groups, key, value)).collect()
    });
    proptest::collection::vec((".{0,20}", changes), 0..4)
}

fn one_change<'a>(tag: u8, groups: (u8, u8), key: &'a [u8], value: &'a [u8]) -> Change<'a> {
    match tag {
        0 => Change::Put { group: groups.0, key, value },
        1 => Change::Delete { group: groups.0, key },
        _ => Change::DeletePrefix { groups, prefix: key },
    }
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(changes in changes()) {
        let checkpoint = Checkpoint { changes, ..checkpoint() };
        let bytes = encode(&checkpoint).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), checkpoint);
    }

    /// Behind a checksum that holds, too: nothing panics, nothing allocates by a wild count.
    #[test]
    fn garbage_is_an_error(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&garbage).is_err());
        let _ = decode_block(&Bytes::copy_from_slice(&garbage));
        prop_assert!(decode_fact(&garbage).is_err());
    }
}

/// Whatever is read was written like this: no damaged object is taken for another one.
#[test]
fn fuzz_checkpoint() {
    let whole = encode(&checkpoint()).unwrap();
    let empty = encode(&Checkpoint { changes: vec![], ..checkpoint() }).unwrap();
    let corpus = [whole, empty];
    fuzz("checkpoint", &corpus, |bytes| {
        let _ = header_bytes(bytes);
        let _ = decode_manifest(bytes);
        if decode(bytes).is_ok() {
            assert!(corpus.iter().any(|seed| seed == bytes), "{}", bytes.escape_ascii());
        }
    });
}

/// Behind a checksum that holds, too: what is read would be written again.
#[test]
fn fuzz_state_block() {
    let whole = encode(&checkpoint()).unwrap();
    let header = header_bytes(&whole).unwrap();
    let block = whole[header + 8..whole.len() - 8].to_vec();
    fuzz("state_block", &[block, b"\x01m\0".to_vec()], |bytes| {
        let block = Bytes::copy_from_slice(bytes);
        let Ok((operator, changes)) = decode_block(&block) else { return };
        let mut again = vec![];
        put_bytes(&mut again, operator.as_bytes());
        put_varint(&mut again, changes.count());
        changes.chunks().iter().for_each(|chunk| again.extend_from_slice(chunk));
        let read = decode_block(&Bytes::from(again)).unwrap();
        assert_eq!(read, (operator, changes));
    });
}

#[test]
fn fuzz_checkpoint_header() {
    let manifest = serde_json::to_vec(&checkpoint().manifest).unwrap();
    fuzz("checkpoint_header", &[manifest], |bytes| {
        // Sealed as if it had been written: only JSON and the manifest's own rules are left.
        let mut object = [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat();
        object.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        object.extend_from_slice(&0u32.to_le_bytes());
        let mut seal = Seal::default();
        seal.put(&mut object);
        object.extend_from_slice(bytes);
        seal.put(&mut object);
        object.extend_from_slice(TRAILER);
        let Ok(read) = decode(&object) else { return };
        assert!(read.manifest.format == FORMAT && read.manifest.base <= read.manifest.number);
        assert_eq!(decode(&encode(&read).unwrap()).unwrap(), read);
    });
}

#[test]
fn fuzz_fact() {
    let floor =
        Fact::Floor { split: SplitId::new("t/1"), from: 7, floor: Timestamp::from_micros(9) };
    let given_up = |operator, letter_at| {
        let (split, reason) = (SplitId::new("t/1"), "panic".into());
        Fact::GivenUp { split, at: 7, reason, operator, letter_at }
    };
    let facts = [
        Fact::Idle { split: SplitId::new("t/1"), at: 7 },
        floor,
        Fact::EndReached,
        given_up(None, None),
        given_up(Some("users".into()), Some(9)),
        Fact::Suspect { split: SplitId::new("t/1"), first: 7, next: 9 },
    ];
    let corpus: Vec<_> = facts.iter().map(|fact| encode_fact("job", 12, fact).unwrap()).collect();
    fuzz("fact", &corpus, |bytes| {
        if decode_fact(bytes).is_ok() {
            assert!(corpus.iter().any(|seed| seed == bytes), "{}", bytes.escape_ascii());
        }
        // Sealed as if it had been written.
        let line = &bytes[..bytes.len().saturating_sub(FACT_SEAL)];
        let sealed = [line, fact_seal(line).as_bytes()].concat();
        let Ok(read) = decode_fact(&sealed) else { return };
        let again = encode_fact(&read.job, read.number, &read.content).unwrap();
        assert_eq!(decode_fact(&again).unwrap(), read);
    });
}
