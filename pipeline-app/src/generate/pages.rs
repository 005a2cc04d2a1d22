//! The pages of the imagined site and how popular they are.

use super::rng;

/// The pages everybody comes across; the first is the most popular one.
const WELL_KNOWN: [&str; 8] =
    ["/", "/products", "/search", "/cart", "/account", "/checkout", "/help", "/blog"];

/// All pages, ready to be written, and a table to draw one from by popularity.
#[derive(Debug)]
pub(super) struct Pages {
    /// The addresses, one after the other.
    text: Vec<u8>,
    /// Where each page's address ends; it begins where the one before ends.
    ends: Vec<u32>,
    /// Walker's alias table: one cell per page, drawn with equal chance.
    cells: Vec<Cell>,
}

/// A cell of the alias table: with `keep` chances of 2³² its own page, otherwise another.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    keep: u32,
    other: u32,
}

impl Pages {
    /// The first `count` pages, with a popularity of one over the rank.
    pub(super) fn new(count: u32) -> Self {
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(count as usize);
        for rank in 0..count {
            text.extend_from_slice(address(rank).as_bytes());
            ends.push(text.len() as u32);
        }
        let weights: Vec<u64> = (1..=u64::from(count)).map(|rank| (1 << 40) / rank).collect();
        Self { text, ends, cells: alias_table(&weights) }
    }

    /// Draws a page with 64 random bits.
    #[inline]
    pub(super) fn draw(&self, bits: u64) -> u32 {
        let cell = rng::below(rng::high(bits), self.cells.len() as u32);
        let Cell { keep, other } = self.cells[cell as usize];
        if rng::low(bits) < keep { cell } else { other }
    }

    /// The address of a page. Nothing in it needs to be escaped in JSON.
    #[inline]
    pub(super) fn address(&self, page: u32) -> &[u8] {
        let page = page as usize;
        let begin = if page == 0 { 0 } else { self.ends[page - 1] };
        &self.text[begin as usize..self.ends[page] as usize]
    }
}

/// The address of the page with this rank, different for each.
fn address(rank: u32) -> String {
    if let Some(known) = WELL_KNOWN.get(rank as usize) {
        return (*known).to_owned();
    }
    match rank % 10 {
        0 | 1 => format!("/products/{rank}"),
        2 => format!("/products/{rank}?ref=home"),
        3 => format!("https://shop.example.com/catalog/shoes/{rank}"),
        4 => format!("/blog/post-{rank}"),
        5 => format!("/docs/guide-{rank}#setup"),
        6 => format!("/catalog/hats/{rank}?sort=price&page=2"),
        7 => format!("/search?q=item%20{rank}"),
        8 => format!("/blog/café-{rank}"),
        _ => format!("http://example.com/help/{rank}"),
    }
}

/// Walker's alias table after Vose, in whole numbers, so that it is the same on every machine.
fn alias_table(weights: &[u64]) -> Vec<Cell> {
    let count = weights.len() as u128;
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    // Scaled so that an average page has exactly `total`.
    let mut scaled: Vec<u128> = weights.iter().map(|&w| u128::from(w) * count).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&page| scaled[page] < total);
    // What is in neither list in the end is full, but for the last of 2³² chances, which go to
    // the page itself as well.
    let mut cells: Vec<Cell> =
        (0..weights.len()).map(|page| Cell { keep: u32::MAX, other: page as u32 }).collect();
    while let (Some(&lacking), Some(&giving)) = (small.last(), large.last()) {
        small.pop();
        let keep = ((scaled[lacking] << 32) / total) as u32;
        cells[lacking] = Cell { keep, other: giving as u32 };
        scaled[giving] -= total - scaled[lacking];
        if scaled[giving] < total {
            large.pop();
            small.push(giving);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_are_distinct_and_need_no_escaping() {
        let pages = Pages::new(5_000);
        let mut seen = HashSet::new();
        for page in 0..5_000 {
            let text = std::str::from_utf8(pages.address(page)).expect("UTF-8");
            assert!(text.len() <= 50, "{text}");
            assert!(!text.contains(['"', '\\']) && !text.contains(char::is_control), "{text}");
            assert!(seen.insert(text.to_owned()), "{text} twice");
        }
        assert_eq!(pages.address(0), b"/");
    }

    #[test]
    fn the_table_gives_each_page_its_share() {
        for count in [1, 2, 3, 200, 1_000] {
            let pages = Pages::new(count);
            // The exact chance of each page, out of count · 2³².
            let mut chances = vec![0u64; count as usize];
            for (page, cell) in pages.cells.iter().enumerate() {
                chances[page] += u64::from(cell.keep);
                chances[cell.other as usize] += (1 << 32) - u64::from(cell.keep);
            }
            let harmonic: f64 = (1..=count).map(|rank| 1.0 / f64::from(rank)).sum();
            for (page, chance) in chances.into_iter().enumerate() {
                let share = chance as f64 / (f64::from(count) * 4_294_967_296.0);
                let expected = 1.0 / ((page + 1) as f64 * harmonic);
                assert!((share / expected - 1.0).abs() < 1e-5, "page {page} of {count}: {share}");
            }
        }
    }

    #[test]
    fn draws_follow_the_table() {
        let pages = Pages::new(200);
        let mut counts = [0u32; 200];
        for i in 0..200_000 {
            counts[pages.draw(rng::at(3, i)) as usize] += 1;
        }
        // One over the 200th harmonic number is 17 %.
        assert!((33_000..35_000).contains(&counts[0]), "{}", counts[0]);
        assert!((16_300..17_700).contains(&counts[1]), "{}", counts[1]);
    }
}
