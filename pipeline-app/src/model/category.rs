//! The category of a page: the first segment of the path in its address.

use std::ops::Range;

/// The category of a page that has a path of no segments: the home page.
pub const HOME: &str = "home";

/// The category of the page at `page_url`, or `None` without a page (no address, or an empty one).
///
/// A leading `scheme://authority` is removed, the rest is cut at the first `?` or `#`, leading
/// slashes are dropped, and what comes before the next slash is the category; nothing is decoded.
/// If nothing remains, it is [`HOME`].
///
/// A scheme is what RFC 3986 says: a letter, then letters, digits, `+`, `-` and `.`. An authority
/// may be empty, and ends before the first `/`, `?` or `#`.
pub fn page_category(page_url: Option<&str>) -> Option<&str> {
    let url = page_url.filter(|url| !url.is_empty())?;
    // A segment begins and ends at ASCII characters, so it is text.
    let segment = url.get(first_segment(url.as_bytes())).unwrap_or_default();
    Some(if segment.is_empty() { HOME } else { segment })
}

/// [`page_category`] of an address in UTF-8.
pub(super) fn page_category_bytes(page_url: Option<&[u8]>) -> Option<&[u8]> {
    let url = page_url.filter(|url| !url.is_empty())?;
    let segment = url.get(first_segment(url)).unwrap_or_default();
    Some(if segment.is_empty() { HOME.as_bytes() } else { segment })
}

/// Where the first segment of the path of a URL is.
fn first_segment(url: &[u8]) -> Range<usize> {
    let mut start = origin_length(url);
    while url.get(start) == Some(&b'/') {
        start += 1;
    }
    start..end_of_segment(url, start)
}

/// How long a leading `scheme://authority` is; 0 if there is none.
fn origin_length(url: &[u8]) -> usize {
    let is_in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme = url.iter().take_while(|byte| is_in_scheme(byte)).count();
    let starts_well = url.first().is_some_and(u8::is_ascii_alphabetic);
    if starts_well && url[scheme..].starts_with(b"://") {
        end_of_segment(url, scheme + 3)
    } else {
        0
    }
}

/// The position of the first `/`, `?` or `#` from `start` on, or the end.
fn end_of_segment(url: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
    url[start..].iter().position(is_end).map_or(url.len(), |distance| start + distance)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_segment_is_the_category() {
        for (url, expected) in [
            ("https://shop.example.com/catalog/shoes?ref=home", "catalog"),
            ("https://shop.example.com/catalog", "catalog"),
            ("https://shop.example.com//catalog/", "catalog"),
            ("https://shop.example.com/", "home"),
            ("https://shop.example.com", "home"),
            ("https://shop.example.com?q=/catalog", "home"),
            ("https://shop.example.com#/catalog", "home"),
            ("https://user@shop.example.com:8080/catalog", "catalog"),
            ("https://", "home"),
            ("https:///catalog", "catalog"),
            ("HTTPS://shop.example.com/catalog", "catalog"),
            ("app+v1.2-x://host/catalog", "catalog"),
            ("/catalog/shoes", "catalog"),
            ("catalog/shoes", "catalog"),
            ("catalog", "catalog"),
            ("/", "home"),
            ("///", "home"),
            ("?q=1", "home"),
            ("#top", "home"),
            ("/?q=a/b", "home"),
            ("/a?b#c", "a"),
            ("/a#c?b", "a"),
            ("/a%2Fb/c", "a%2Fb"),
            ("/%20/c", "%20"),
            ("/ /c", " "),
            ("/größe/x", "größe"),
            // Not a scheme, or not at the start.
            ("//host/catalog", "host"),
            ("1http://host/catalog", "1http:"),
            ("://host/catalog", ":"),
            ("ht_tp://host/catalog", "ht_tp:"),
            ("https:/catalog", "https:"),
            ("https:catalog", "https:catalog"),
            ("/go/https://host/catalog", "go"),
            ("go?to=https://host/catalog", "go"),
            (" https://host/catalog", " https:"),
            ("größe://host/catalog", "größe:"),
            // Only one origin is removed.
            ("https://a/https://b/c", "https:"),
        ] {
            assert_eq!(page_category(Some(url)), Some(expected), "{url}");
            let bytes = page_category_bytes(Some(url.as_bytes()));
            assert_eq!(bytes, Some(expected.as_bytes()), "{url}");
        }
    }

    #[test]
    fn no_page_has_no_category() {
        assert_eq!(page_category(None), None);
        assert_eq!(page_category(Some("")), None);
        assert_eq!(page_category_bytes(None), None);
        assert_eq!(page_category_bytes(Some(b"")), None);
    }

    /// The rule, step by step.
    fn literally(url: &str) -> &str {
        let mut rest = url;
        if let Some((scheme, after)) = url.split_once("://") {
            let mut letters = scheme.chars();
            let starts_well = letters.next().is_some_and(|first| first.is_ascii_alphabetic());
            if starts_well && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
                rest = &after[after.find(['/', '?', '#']).unwrap_or(after.len())..];
            }
        }
        let path = rest.split(['?', '#']).next().unwrap();
        match path.trim_start_matches('/').split('/').next().unwrap() {
            "" => "home",
            segment => segment,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_rule_is_kept(url in "([a-z1]|://|[:/?#+.é_ ]){1,12}") {
            prop_assert_eq!(page_category(Some(&url)), Some(literally(&url)));
            let bytes = page_category_bytes(Some(url.as_bytes()));
            prop_assert_eq!(bytes, Some(literally(&url).as_bytes()));
        }

        #[test]
        fn a_category_is_one_non_empty_segment(url in "[a-z:/?#+.é ]{1,24}") {
            let category = page_category(Some(&url)).unwrap();
            prop_assert!(!category.is_empty() && !category.contains(['/', '?', '#']));
            prop_assert!(url.contains(category) || category == HOME);
        }

        #[test]
        fn an_origin_changes_nothing(path in "/[a-z:/?#+.é ]{0,24}") {
            let with_origin = format!("https://shop.example.com{path}");
            prop_assert_eq!(page_category(Some(&with_origin)), page_category(Some(&path)));
        }
    }
}
