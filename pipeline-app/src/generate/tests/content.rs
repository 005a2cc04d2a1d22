//! Tests of what the events are like: shares, popularity, disorder, visits, users.

use super::*;

/// Options with neither disorder nor anything malformed.
fn plain() -> GeneratorOptions {
    GeneratorOptions { out_of_order: 0.0, late: 0.0, malformed: 0.0, ..Default::default() }
}

fn share(count: usize, of: usize) -> f64 {
    count as f64 / of as f64
}

#[test]
fn well_formed_records_parse_and_are_as_varied_as_the_options_say() {
    let options = GeneratorOptions::default();
    let generator = generator(options.clone());
    let mut types: HashMap<String, usize> = HashMap::new();
    let mut pages: HashMap<String, usize> = HashMap::new();
    let (mut all, mut with_extra, mut other_forms, mut bytes) = (0, 0, 0, 0);
    for split in 0..4 {
        for record in records(&generator, split, 1_000_000, 60_000) {
            if matches!(record.kind, Kind::Malformed(_)) {
                continue;
            }
            all += 1;
            bytes += record.value.len();
            assert!(record.value.len() <= 190, "{}", record.text());
            let event = record.event();
            assert_eq!(event.user.as_bytes(), record.key);
            assert!(event.time <= record.timestamp);
            *types.entry(event.event_type.to_owned()).or_default() += 1;
            if event.event_type == "page_view" {
                let page = event.page.expect("a page view has a page");
                *pages.entry(page.to_owned()).or_default() += 1;
            }
            with_extra += usize::from(event.extra > 0);
            let usual = record.text().as_bytes()[14] == b'"' && record.value[38] == b'Z';
            other_forms += usize::from(!usual);
        }
    }
    assert!((share(with_extra, all) - 0.3).abs() < 0.015, "{}", share(with_extra, all));
    assert!((share(other_forms, all) - 0.03).abs() < 0.003, "{}", share(other_forms, all));
    assert!((100..160).contains(&(bytes / all)), "{} bytes on average", bytes / all);
    for (event_type, expected) in
        [("page_view", 0.69), ("click", 0.17), ("session_start", 0.07), ("session_end", 0.043)]
    {
        let measured = share(types[event_type], all);
        assert!((measured - expected).abs() < 0.02, "{event_type}: {measured}");
    }
    assert_eq!(types.len(), 8, "{types:?}");

    // Zipf: the r-th page has an r-th of the first one's views.
    let views: usize = pages.values().sum();
    let mut ranked: Vec<usize> = pages.into_values().collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(ranked.len(), 200);
    assert!((share(ranked[0], views) - 0.170).abs() < 0.01, "{}", share(ranked[0], views));
    for rank in [2, 5, 10, 50] {
        let ratio = share(ranked[0], ranked[rank - 1]);
        assert!((ratio / rank as f64 - 1.0).abs() < 0.15, "rank {rank}: {ratio}");
    }
}

/// The highest time before each record, and the record's own.
fn lags(records: &[Record]) -> Vec<(i64, Kind)> {
    let mut highest = i64::MIN;
    let mut lags = Vec::new();
    for record in records.iter().filter(|record| !matches!(record.kind, Kind::Malformed(_))) {
        let time = record.event().time;
        lags.push((highest.max(time) - time, record.kind));
        highest = highest.max(time);
    }
    lags
}

#[test]
fn disorder_is_as_the_options_say() {
    let generator = generator(GeneratorOptions { late: 0.002, ..Default::default() });
    let (mut all, mut behind, mut late) = (0, 0, 0);
    for split in 0..4 {
        for (lag, kind) in lags(&records(&generator, split, 0, 50_000)).into_iter().skip(1_000) {
            all += 1;
            match kind {
                Kind::InOrder => assert_eq!(lag, 0),
                Kind::OutOfOrder => assert!(lag <= 60_100_000, "{lag}"),
                Kind::Late => assert!((179_900_000..=900_100_000).contains(&lag), "{lag}"),
                Kind::Malformed(_) => unreachable!("left out"),
            }
            behind += usize::from(lag > 0 && kind == Kind::OutOfOrder);
            late += usize::from(kind == Kind::Late);
        }
    }
    assert!((share(behind, all) - 0.2).abs() < 0.01, "{}", share(behind, all));
    assert!((share(late, all) - 0.002).abs() < 0.0005, "{}", share(late, all));
}

#[test]
fn without_late_records_nothing_is_two_minutes_behind() {
    for (users, events_per_second, out_of_order) in
        [(2_000, 500, 0.2), (100_000, 500, 1.0), (20, 3, 0.5), (4, 1, 1.0), (50_000, 100_000, 0.9)]
    {
        let generator = generator(GeneratorOptions {
            users,
            events_per_second,
            out_of_order,
            late: 0.0,
            ..Default::default()
        });
        for split in 0..4 {
            for (lag, _) in lags(&records(&generator, split, 0, 10_000)) {
                assert!(lag <= 62_000_000, "{lag} at {events_per_second} with {users} users");
            }
        }
    }
}

#[test]
fn without_disorder_times_never_decrease() {
    for events_per_second in [1, 500, 1_000_000] {
        let generator = generator(GeneratorOptions { events_per_second, ..plain() });
        for (lag, kind) in lags(&records(&generator, 2, 0, 20_000)) {
            assert_eq!((lag, kind), (0, Kind::InOrder));
        }
    }
}

#[test]
fn malformed_records_come_in_every_way_and_in_the_share_asked_for() {
    let generator = generator(GeneratorOptions::default());
    let mut flaws: HashMap<Flaw, usize> = HashMap::new();
    let mut all = 0;
    for split in 0..4 {
        for record in records(&generator, split, 0, 250_000) {
            all += 1;
            if let Kind::Malformed(flaw) = record.kind {
                *flaws.entry(flaw).or_default() += 1;
            }
        }
    }
    let measured = share(flaws.values().sum(), all);
    assert!((measured - 0.001).abs() < 0.0002, "{measured}");
    assert_eq!(flaws.len(), Flaw::ALL.len());
}

/// Follows the visits of every user through a sorted run of events.
fn check_visits(events: &[Event<'_>]) {
    let mut previous: HashMap<&str, &str> = HashMap::new();
    let (mut started, mut ended) = (0, 0);
    for event in events {
        let before = previous.insert(event.user, event.event_type);
        if event.event_type == "session_start" {
            started += 1;
        } else {
            assert_ne!(before, Some("session_end"), "{event:?} after the end of a visit");
        }
        ended += usize::from(event.event_type == "session_end");
    }
    assert!(started > 2_000, "{started} visits");
    assert!((share(ended, started) - 0.6).abs() < 0.04, "{}", share(ended, started));
}

#[test]
fn visits_begin_and_end_properly_even_out_of_order() {
    for (users, out_of_order) in [(2_000, 0.0), (2_000, 0.2), (100_000, 0.6)] {
        let generator = generator(GeneratorOptions { users, out_of_order, ..plain() });
        for split in 0..4 {
            let records = records(&generator, split, 77_777, 50_000);
            let mut events: Vec<Event<'_>> = records.iter().map(Record::event).collect();
            // The end of the run is incomplete where something is still on its way.
            let complete = events[events.len() - 1].time - 60_000_000;
            events.retain(|event| event.time < complete);
            events.sort_by_key(|event| {
                let place = match event.event_type {
                    "session_start" => 0,
                    "session_end" => 2,
                    _ => 1,
                };
                (event.time, place)
            });
            check_visits(&events);
        }
    }
}

#[test]
fn a_user_is_always_in_the_same_split() {
    for splits in [1, 3, 4, 7] {
        let generator =
            generator(GeneratorOptions { splits, users: 2_000, ..GeneratorOptions::default() });
        let mut split_of = HashMap::new();
        for split in 0..splits {
            for record in records(&generator, split, 0, 30_000) {
                if !matches!(record.kind, Kind::Malformed(_)) {
                    assert_eq!(*split_of.entry(record.key).or_insert(split), split);
                }
            }
        }
        assert!((1_500..=2_000).contains(&split_of.len()), "{} users", split_of.len());
    }
}

#[test]
fn some_users_are_more_active_than_others() {
    let generator = generator(GeneratorOptions { users: 40_000, ..Default::default() });
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for record in records(&generator, 0, 0, 500_000) {
        *counts.entry(record.key).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let top: usize = counts[..1_000].iter().sum();
    assert!(share(top, 500_000) > 0.25, "a tenth of the users has {}", share(top, 500_000));
}
