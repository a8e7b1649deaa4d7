//! The XML that stores speak: small trees read by local names, and text made safe for bodies.
//!
//! Replies come with several namespaces or none, so names are matched without prefix. What a reply
//! may make this process do is bounded by its length (the caller's limit) and by [`MAX_DEPTH`].

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

/// The deepest reply known nests five elements; more is not one of a store.
const MAX_DEPTH: usize = 16;

/// An element with its text and its children; attributes are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Local name.
    pub(super) name: String,
    /// All text directly inside.
    pub(super) text: String,
    /// Elements directly inside, in order.
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of this name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str())
    }

    /// As [`Element::value`], trimmed; `None` if there is nothing.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.value(name).map(str::trim).filter(|text| !text.is_empty())
    }
}

/// Reads a document; white space before its declaration is allowed (a slow Complete drips it).
///
/// # Errors
/// What is wrong with it, as a text to be shown.
pub(super) fn parse(bytes: &[u8]) -> Result<Element, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("the body is not UTF-8: {error}"))?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|error| format!("the body is not XML: {error}"))?;
        match event {
            Event::Start(start) => {
                if open.len() >= MAX_DEPTH {
                    return Err("the body is XML nested too deeply".to_owned());
                }
                open.push(Element { name: start.local_name().as_ref().to_owned(), ..Element::default() });
            }
            Event::Empty(start) => {
                let element = Element { name: start.local_name().as_ref().to_owned(), ..Element::default() };
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => return Ok(element),
                }
            }
            Event::End(_) => {
                let closed = open.pop().ok_or("the body is not XML: an element ends that never began")?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(closed),
                    None => return Ok(closed),
                }
            }
            Event::Text(piece) => append(&mut open, &piece.xml10_content()),
            Event::CData(piece) => append(&mut open, &piece.xml10_content()),
            Event::GeneralRef(entity) => append(&mut open, resolve(&entity)?.encode_utf8(&mut [0; 4])),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof if open.is_empty() => return Err("the body is empty".to_owned()),
            Event::Eof => return Err("the body ends in the middle of its XML".to_owned()),
        }
    }
}

fn append(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// The five entities of XML and character references; a document type's own are not expanded.
fn resolve(entity: &BytesRef<'_>) -> Result<char, String> {
    let unknown = || format!("the body is XML with an unknown entity &{};", &**entity);
    match &**entity {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => entity.resolve_char_ref().ok().flatten().ok_or_else(unknown),
    }
}

/// Text for an element: markup escaped, and white space that parsers would normalise written as
/// references. `None` if it holds a character that XML 1.0 cannot carry at all.
pub(super) fn escape(text: &str) -> Option<String> {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => return None,
            other => escaped.push(other),
        }
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_without_namespace_and_text_is_whole() {
        let body = b"  \n \n<?xml version='1.0'?><!-- c --><x:Root xmlns:x=\"http://q/\"><x:A> a&amp;b&#x4e2d;<![CDATA[<c>]]></x:A>\
                     <B/><A>2</A></x:Root>\n";
        let root = parse(body).unwrap();
        assert_eq!(root.name, "Root");
        assert_eq!(root.value("A"), Some(" a&b\u{4e2d}<c>"));
        assert_eq!(root.all("A").count(), 2);
        assert_eq!((root.value("B"), root.word("B"), root.value("C")), (Some(""), None, None));
        assert_eq!(root.word("A"), Some("a&b\u{4e2d}<c>"));
    }

    #[test]
    fn what_is_cut_or_no_xml_is_an_error() {
        for body in ["", "   ", "<a><b>", "<a></b>", "hello", "<a>&nope;</a>", "<a"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse(&[0xff, 0xfe]).is_err());
        let deep = "<a>".repeat(1000) + &"</a>".repeat(1000);
        assert!(parse(deep.as_bytes()).unwrap_err().contains("deep"));
    }

    #[test]
    fn escaped_text_comes_back_unchanged() {
        let text = "a <b> & \"c\" 'd'\t\r\n\u{4e2d} ]]>";
        let root = parse(format!("<Key>{}</Key>", escape(text).unwrap()).as_bytes()).unwrap();
        assert_eq!(root.text, text);
        assert_eq!(escape("a\u{1}b"), None);
    }
}
