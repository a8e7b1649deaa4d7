//! Writes and reads the XML of the COS protocol. Pure.

use quick_xml::Reader;
use quick_xml::events::Event;

/// How every reply begins.
pub(super) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n";

/// Writes a document.
#[derive(Default)]
pub(super) struct Writer {
    text: String,
}

impl Writer {
    pub(super) fn open(mut self, tag: &str) -> Writer {
        self.text.push_str(&format!("<{tag}>"));
        self
    }

    pub(super) fn close(mut self, tag: &str) -> Writer {
        self.text.push_str(&format!("</{tag}>"));
        self
    }

    pub(super) fn leaf(mut self, tag: &str, value: impl AsRef<str>) -> Writer {
        self.text.push_str(&format!("<{tag}>"));
        escape(value.as_ref(), &mut self.text);
        self.text.push_str(&format!("</{tag}>"));
        self
    }

    pub(super) fn append(mut self, other: Writer) -> Writer {
        self.text.push_str(&other.text);
        self
    }

    /// Without the declaration.
    pub(super) fn element(self) -> String {
        self.text
    }

    pub(super) fn document(self) -> String {
        format!("{DECLARATION}{}", self.text)
    }
}

/// Control characters become references although XML 1.0 forbids those too: that is what a client
/// gets that lists such keys without `encoding-type=url`.
fn escape(value: &str, out: &mut String) {
    for letter in value.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            control if control.is_control() => out.push_str(&format!("&#x{:x};", u32::from(control))),
            other => out.push(other),
        }
    }
}

/// One element, without attributes and namespaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Node>,
}

impl Node {
    pub(super) fn child(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| child.text.as_str())
    }
}

/// Deeper than any body of the protocol.
const DEEPEST: usize = 8;

/// The root element; `None` if this is not one well-formed document.
pub(super) fn parse(bytes: &[u8]) -> Option<Node> {
    let mut reader = Reader::from_str(std::str::from_utf8(bytes).ok()?);
    // The bottom stands for the document.
    let mut stack = vec![Node::default()];
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                let name = start.local_name().as_ref().to_owned();
                stack.push(Node { name, ..Node::default() });
                if stack.len() > DEEPEST {
                    return None;
                }
            }
            Event::Empty(start) => {
                let name = start.local_name().as_ref().to_owned();
                stack.last_mut()?.children.push(Node { name, ..Node::default() });
            }
            Event::End(_) => {
                let done = stack.pop()?;
                stack.last_mut()?.children.push(done);
            }
            Event::Text(text) => stack.last_mut()?.text.push_str(&text.xml10_content()),
            Event::CData(text) => stack.last_mut()?.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let letter = match reference.resolve_char_ref().ok()? {
                    Some(letter) => letter,
                    None => match reference.xml10_content().as_ref() {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return None,
                    },
                };
                stack.last_mut()?.text.push(letter);
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::DocType(_) => return None,
            Event::Eof => break,
        }
    }
    let mut document = stack.pop().filter(|_| stack.is_empty())?;
    let root = document.children.pop()?;
    (document.children.is_empty() && document.text.trim().is_empty()).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let text = "a<b>&\"'\u{4e2d}\u{1}\n c";
        let document = Writer::default().open("Root").leaf("Key", text).leaf("Empty", "").close("Root").document();
        let root = parse(document.as_bytes()).unwrap();
        assert_eq!(root.name, "Root");
        assert_eq!(root.child("Key"), Some(text));
        assert_eq!(root.child("Empty"), Some(""));
    }

    #[test]
    fn namespaces_and_references_are_understood() {
        let root =
            parse(b"<d:Delete xmlns:d='x'><d:Object><Key>a&#x31;&#50;&lt;</Key><Q/></d:Object></d:Delete>").unwrap();
        assert_eq!(root.name, "Delete");
        assert_eq!(root.children[0].child("Key"), Some("a12<"));
        assert_eq!(root.children[0].child("Q"), Some(""));
    }

    #[test]
    fn broken_documents_are_refused() {
        for bad in ["", "<a>", "<a></b>", "<a/><b/>", "text", "<a>&nope;</a>", "<a><b></a></b>", "\u{feff}x"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"<a>\xff</a>"), None);
        assert_eq!(parse("<a>".repeat(50).as_bytes()), None);
    }
}
