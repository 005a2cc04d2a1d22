//! `decode` against the reference: on records put together from odd pieces, and on mutated ones.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use streamkit::testing::fuzz;

use super::decode_reference::{Expected, Members, reference};
use super::{
    DeadLetter, Origin, Reason, canonical, category, decode, enriched, event_time, json_text,
};

/// How many records are put together: a thorough run is one in release mode.
const ROUNDS: usize = if cfg!(debug_assertions) { 20_000 } else { 200_000 };

const NAMES: &[&str] = &[
    "user_id",
    "event_type",
    "page_url",
    "event_time",
    "user_id",
    "event_type",
    "event_time",
    "x",
    "",
    r"user\u005fid",
    r"\u0065vent_time",
    "event_date",
    r"page\u005fcategory",
    "processing_time",
    "User_id",
    "user_id ",
    "é",
];

const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "42",
    "-7",
    "1.0",
    "1e3",
    "01",
    "-",
    "[]",
    "{}",
    "[1,[2]]",
    r#"{"user_id":1,"user_id":2}"#,
    r#""""#,
    r#""u""#,
    r#""\u0000""#,
    r#""a\u0000b""#,
    r#""é\n""#,
    r#""\ud83d\ude00""#,
    r#""\ud83d""#,
    r#"["\udc00"]"#,
    "\"\n\"",
    r#""click""#,
    r#""page_view""#,
    r#""page\u005fview""#,
    r#""session_end""#,
    r#""/a/b""#,
    r#""https://a.example/b?c""#,
    "1767225600",
    "1767225600.1234567",
    "1767225600123",
    "1767225600123456789",
    "946684799.999999",
    "99999999999",
    "99999999999.9",
    "100000000000",
    "99999999999999",
    "100000000000000",
    "99999999999999999",
    "100000000000000000",
    "253402300799999999999",
    "253402300800000000000",
    r#""1767225600""#,
    r#""01767225600.5""#,
    r#""1767225600.""#,
    r#""2026-01-01T00:00:00Z""#,
    r#""2026-01-01 00:00:00.123456789 UTC""#,
    r#""2026-02-29T00:00:00Z""#,
    r#""2024-02-29t23:59:59+23:59""#,
    r#""2026-01-01T00:00:00-0800""#,
    r#""2026-01-01T00:00:00+05""#,
    r#""2000-01-01T00:00:00+00:01""#,
    r#""1999-12-31T23:59:59-00:01""#,
    r#""2026-01-01""#,
];

const SEEDS: &[&str] = &[
    r#"{"event_time":"2026-01-01T00:00:00.123Z","user_id":"user_1","page_url":"https://shop.example.com/catalog/1?ref=home","event_type":"page_view"}"#,
    r#" { "user_id" : 42 , "event_type" : "click" , "event_time" : 1767225600.5 , "x" : [ { "y" : null } ] } "#,
    r#"{"user_id":"\u00fc\ud83d\ude00","event_type":"session_start","page_url":null,"event_time":"1767225600123","event_date":"x"}"#,
    r#"{"event_type":"é","event_time":"2026-01-01 00:00:00.1 UTC","page_url":"","user_id":-0,"a":1e400,"a":2}"#,
    r#"{"event_time": "2026-01-01T00:00:00+01:00", "user_id": "1", "page_url": "", "event_type": "click"}"#,
    r#"[{"user_id":1}]"#,
];

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }
}

/// Compares the two, checks what is written about the record, and returns the outcome.
fn check(value: &[u8]) -> &'static str {
    let shown = || String::from_utf8_lossy(value).into_owned();
    let bytes = Bytes::copy_from_slice(value);
    let expected = reference(Some(value));
    match (decode(Some(&bytes), Origin::default()), expected) {
        (Ok(activity), Ok(expected)) => {
            let actual = Expected {
                user_id: activity.user_id().to_owned(),
                event_type: activity.event_type().to_owned(),
                page_url: activity.page_url().map(str::to_owned),
                event_time: activity.event_time(),
            };
            assert_eq!(actual, expected, "{}", shown());
            assert_eq!(activity.is_page_view(), expected.event_type == "page_view");
            let mut out = Vec::new();
            enriched::render(&activity, 1_767_225_600_000_000, &mut out);
            let [body, out] =
                [activity.body(), &out[..]].map(|text| std::str::from_utf8(text).unwrap());
            check_enriched(body, out, &expected);
            if canonical::read(value).is_some() { "accepted by the short cut" } else { "accepted" }
        }
        (Err(reject), Err((reason, field))) => {
            let actual = (reject.reason.as_str(), reject.field);
            assert_eq!(actual, (reason, field), "{}: {}", shown(), reject.error);
            let origin = Origin::default();
            let (topic, app) = ("t", "a");
            let letter = DeadLetter {
                reject: &reject,
                operator: None,
                topic,
                origin: &origin,
                value: Some(value),
                app,
            };
            let mut line = Vec::new();
            letter.write_line(&mut line);
            let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(line.get("value").is_some(), std::str::from_utf8(value).is_ok());
            reason
        }
        (Ok(_), Err(fault)) => panic!("accepted in spite of {fault:?}: {}", shown()),
        (Err(reject), Ok(_)) => panic!("rejected, {reject:?}: {}", shown()),
    }
}

/// The members that came in, less those of our names, and ours, every value as it was written.
fn check_enriched(body: &str, rendered: &str, expected: &Expected) {
    let ours = ["processing_time", "event_date", "page_category"];
    let written = |text| {
        let Members(members) = serde_json::from_str::<Members<'_>>(text).unwrap();
        members.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect::<Vec<_>>()
    };
    let mut members = written(body);
    members.retain(|(name, _)| !ours.contains(&name.as_str()));
    let category = category::page_category(expected.page_url.as_deref());
    let values = [
        "\"2026-01-01T00:00:00.000Z\"".to_owned(),
        format!("\"{}\"", event_time::format_date(expected.event_time)),
        serde_json::to_string(&category).unwrap(),
    ];
    members.extend(ours.map(str::to_owned).into_iter().zip(values));
    assert_eq!(written(rendered), members, "{body}");
    assert!(rendered.starts_with('{') && rendered.ends_with('}'), "{rendered}");
}

fn check_all_seen(outcomes: &BTreeMap<&'static str, usize>, seen: &[Reason]) {
    assert!(outcomes.contains_key("accepted"), "{outcomes:?}");
    assert!(outcomes.contains_key("accepted by the short cut"), "{outcomes:?}");
    for reason in seen {
        assert!(outcomes.contains_key(reason.as_str()), "{reason:?}: {outcomes:?}");
    }
}

#[test]
fn composed_records_are_decoded_as_the_reference_does() {
    let mut random = Random(1);
    let mut outcomes = BTreeMap::new();
    let long = ["x", "é", r"\n", r"\u00e9", r"\ud83d\ude00"];
    for _ in 0..ROUNDS {
        let mut members = Vec::new();
        for (name, usual) in [
            ("event_time", "\"2026-01-01T00:00:00Z\""),
            ("user_id", "\"u\""),
            ("page_url", "\"/a\""),
            ("event_type", "\"page_view\""),
        ] {
            match random.below(40) {
                0 => {}
                1..=6 => members.push((name, random.pick(VALUES).to_owned())),
                7 => {
                    let length = [128, 512, 2048][random.below(3)] / random.below(5).max(1);
                    let text = random.pick(&long).repeat(length + random.below(3));
                    members.push((name, format!("\"{text}\"")));
                }
                _ => members.push((name, usual.to_owned())),
            }
        }
        for _ in 0..random.below(8) / 4 {
            members.push((random.pick(NAMES), random.pick(VALUES).to_owned()));
        }
        if random.below(20) == 0 {
            let (depth, open) = (120 + random.below(10), random.pick(&["[", "{\"a\":"]));
            let close = if open == "[" { "]" } else { "}" };
            members.push(("x", format!("{}0{}", open.repeat(depth), close.repeat(depth))));
        }
        let turn = random.below(2) * random.below(members.len());
        members.rotate_left(turn);
        // What stands around everything, and what follows commas and colons.
        let (around, after) = [("", ""), ("", " "), (" ", ""), ("\r\n\t", "")][random.below(4)];
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("\"{name}\"{around}:{after}{around}{value}{around}"))
            .collect();
        let members = members.join(&format!(",{after}{around}"));
        let record = format!("{around}{{{around}{members}}}{around}");
        *outcomes.entry(check(record.as_bytes())).or_insert(0) += 1;
    }
    check_all_seen(&outcomes, &[Reason::BadJson]);
    check_all_seen(&outcomes, &Reason::ALL[4..11]);
}

/// Mutations of `texts`, and what of other texts they may get.
fn corpus(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().chain(VALUES).map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn fuzz_event() {
    let mut outcomes = BTreeMap::new();
    let mut corpus: Vec<_> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    corpus.extend([b" ".to_vec(), b"[]".to_vec()]);
    fuzz("event", &corpus, |record| *outcomes.entry(check(record)).or_insert(0) += 1);
    check_all_seen(&outcomes, &Reason::ALL[..6]);
    check_all_seen(&outcomes, &[Reason::BadEventTime]);
}

/// Any bytes as the value of an unknown field: what is JSON to the one is to the other.
#[test]
fn fuzz_json() {
    let nested = r#"[{"a":"\u00e9\ud83d\ude00\n"},-1.50e+3,[[]],"é",true,null]"#;
    fuzz("json", &corpus(&[nested]), |value| {
        let head = br#"{"user_id":1,"event_type":"c","event_time":1767225600,"x":"#;
        check(&[head, value, b"}"].concat());
    });
}

#[test]
fn fuzz_json_text() {
    let texts = ["a\\u00e9\\ud83d\\ude00\\n\\/", "é\u{1}\"\u{feff}", "\u{1f600}"];
    fuzz("json_text", &corpus(&texts), |text| {
        json_text::unescape(text);
        assert!(!json_text::excerpt(text).contains(char::is_control));
        let Ok(text) = std::str::from_utf8(text) else { return };
        let mut written = vec![];
        json_text::write_string(text, &mut written);
        assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), text);
        assert_eq!(json_text::unescape(&written[1..written.len() - 1]), text.as_bytes());
    });
}

#[test]
fn fuzz_event_time() {
    let texts = ["2026-01-01T00:00:00.123456789+05:30", "2024-02-29 23:59:59 UTC", "1767225600.5"];
    fuzz("event_time", &corpus(&texts), |bytes| {
        let record =
            |time: &str| format!(r#"{{"user_id":1,"event_type":"c","event_time":{time}}}"#);
        let text = String::from_utf8_lossy(bytes);
        check(record(&text).as_bytes());
        check(record(&serde_json::to_string(&text).unwrap()).as_bytes());
        if let Ok(time) = event_time::parse_text(bytes) {
            let written = event_time::format_micros(time);
            assert_eq!(event_time::parse_text(written.as_bytes()), Ok(time), "{text}");
        }
    });
}

#[test]
fn fuzz_page() {
    let texts =
        ["https://shop.example.com//catalog/1?ref=home#x", "/a/b", "h://?", "ftp+x.1-:///ü/"];
    fuzz("page", &corpus(&texts), |bytes| {
        let url = String::from_utf8_lossy(bytes);
        let Some(category) = category::page_category(Some(&url)) else {
            return assert_eq!(url, "");
        };
        assert!(!category.is_empty() && !category.contains(['/', '?', '#']), "{url}: {category}");
        assert!(category == category::HOME || url.contains(category), "{url}: {category}");
        assert_eq!(category::page_category_bytes(Some(url.as_bytes())), Some(category.as_bytes()));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_time_is_decoded_as_the_reference_does(
        time in r"[12][09][0-9]{2}-[01][0-9]-[0-3][0-9][Tt _][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,10})?( ?UTC|[Zz]|[+-][0-2][0-9](:?[0-6][0-9]?)?)?"
    ) {
        check(format!(r#"{{"user_id":1,"event_type":"c","event_time":"{time}"}}"#).as_bytes());
    }

    #[test]
    fn any_strings_are_decoded_as_the_reference_does(user in any::<String>(), url in any::<String>()) {
        let (user, url) = (serde_json::to_string(&user).unwrap(), serde_json::to_string(&url).unwrap());
        let record = format!(
            r#"{{"user_id":{user},"event_type":"page_view","page_url":{url},"event_time":1767225600}}"#
        );
        check(record.as_bytes());
    }

    #[test]
    fn any_members_are_decoded_as_the_reference_does(
        members in proptest::collection::vec((select(NAMES), select(VALUES)), 0..8)
    ) {
        let members: Vec<_> =
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        check(format!("{{{}}}", members.join(",")).as_bytes());
    }

    #[test]
    fn any_bytes_are_decoded_as_the_reference_does(value in proptest::collection::vec(any::<u8>(), 0..12)) {
        check(&value);
    }
}
