//! The bucket and what is in it: HEAD bucket, objects, uploads in progress.

use super::client::{Call, CosClient, Reply, Wrong};
use super::meta::storage_class;
use crate::http::{Method, decode, parse_iso8601};
use crate::store::error::Result;
use crate::store::retry::Repeat;
use crate::store::xml::Element;
use crate::store::{ListOptions, ListPage, ObjectHeaders, ObjectMeta, Upload, UploadsPage};
use crate::types::{ETag, Key};

/// The most that COS returns in a page, keys and prefixes together.
const MAX_PAGE: u32 = 1000;

pub(super) async fn head_bucket(client: &CosClient) -> Result<()> {
    client.call(Call::new(Method::HEAD, None, Repeat::Read), |_| Ok(())).await
}

pub(super) async fn list(client: &CosClient, options: ListOptions) -> Result<ListPage> {
    let mut call = Call::new(Method::GET, None, Repeat::Read);
    let max_keys = if options.max_keys == 0 { MAX_PAGE } else { options.max_keys.min(MAX_PAGE) };
    call.query.push(("prefix", options.prefix));
    call.query.extend(options.delimiter.map(|delimiter| ("delimiter", delimiter.to_string())));
    call.query.extend(options.marker.clone().map(|marker| ("marker", marker)));
    call.query.push(("max-keys", max_keys.to_string()));
    // Keys hold bytes that XML cannot carry.
    call.query.push(("encoding-type", "url".to_owned()));
    let marker = options.marker.unwrap_or_default();
    client.call(call, |reply: Reply| Ok(page(&reply.xml("ListBucketResult")?, &marker)?)).await
}

/// Reads texts as the listing says they are encoded.
struct Encoding {
    url: bool,
}

impl Encoding {
    fn of(root: &Element) -> Self {
        Encoding { url: root.word("EncodingType").is_some_and(|kind| kind.eq_ignore_ascii_case("url")) }
    }

    /// A text that must be exact.
    fn exact(&self, text: &str) -> std::result::Result<String, String> {
        if !self.url {
            return Ok(text.to_owned());
        }
        String::from_utf8(decode(text)).map_err(|_| format!("`{text}` is not UTF-8"))
    }

    /// A name to be shown. One that is not UTF-8 cannot be a path; it is shown with replacement
    /// characters, so that it is at least seen.
    fn shown(&self, text: &str) -> String {
        self.exact(text).unwrap_or_else(|_| String::from_utf8_lossy(&decode(text)).into_owned())
    }
}

fn truncated(root: &Element) -> bool {
    root.word("IsTruncated").is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

fn page(root: &Element, marker: &str) -> std::result::Result<ListPage, String> {
    let encoding = Encoding::of(root);
    let mut page = ListPage::default();
    for entry in root.all("Contents") {
        page.objects.push(object(entry, &encoding)?);
    }
    for entry in root.all("CommonPrefixes") {
        let prefix = entry.value("Prefix").ok_or_else(|| "a common prefix has no name".to_owned())?;
        page.prefixes.push(encoding.shown(prefix));
    }
    if truncated(root) {
        let told = root.word("NextMarker").map(|text| encoding.exact(text)).transpose()?;
        let last_key = page.objects.last().map(|object| object.key.0.clone());
        let next = told.or_else(|| last_key.max(page.prefixes.last().cloned()));
        // A listing that does not move on would be read for ever.
        let next = next.filter(|next| next.as_str() > marker);
        page.next_marker = Some(next.ok_or_else(|| "the listing is cut and says not where to go on".to_owned())?);
    }
    Ok(page)
}

fn object(entry: &Element, encoding: &Encoding) -> std::result::Result<ObjectMeta, String> {
    let key = entry.value("Key").ok_or_else(|| "an object has no key".to_owned())?;
    let size = entry.word("Size").and_then(|text| text.parse().ok());
    Ok(ObjectMeta {
        key: Key(encoding.shown(key)),
        size: size.ok_or_else(|| format!("the object `{key}` has no size"))?,
        etag: ETag::parse(entry.value("ETag").unwrap_or_default()),
        last_modified: entry.word("LastModified").and_then(parse_iso8601),
        crc64: None,
        version_id: None,
        storage_class: storage_class(entry.word("StorageClass")),
        encryption: None,
        tag_count: 0,
        headers: ObjectHeaders::default(),
    })
}

pub(super) async fn list_uploads(
    client: &CosClient,
    prefix: &str,
    marker: Option<(String, String)>,
) -> Result<UploadsPage> {
    let mut call = Call::new(Method::GET, None, Repeat::Read);
    call.query.push(("uploads", String::new()));
    call.query.push(("prefix", prefix.to_owned()));
    call.query.push(("max-uploads", MAX_PAGE.to_string()));
    call.query.push(("encoding-type", "url".to_owned()));
    if let Some((key, upload_id)) = marker.clone() {
        call.query.push(("key-marker", key));
        call.query.push(("upload-id-marker", upload_id));
    }
    let read = |reply: Reply| {
        let page = uploads(&reply.xml("ListMultipartUploadsResult")?)?;
        // Ids within a key are in no order that is promised, so only standing still can be noticed.
        if page.next_marker.is_some() && page.next_marker == marker {
            return Err(Wrong::Reply("the listing does not move on".to_owned()));
        }
        Ok(page)
    };
    client.call(call, read).await
}

fn uploads(root: &Element) -> std::result::Result<UploadsPage, String> {
    let encoding = Encoding::of(root);
    let mut page = UploadsPage::default();
    for entry in root.all("Upload") {
        let key = entry.value("Key").ok_or_else(|| "an upload has no key".to_owned())?;
        let upload_id = entry.word("UploadId").ok_or_else(|| "an upload has no id".to_owned())?;
        page.uploads.push(Upload {
            key: Key(encoding.shown(key)),
            upload_id: upload_id.to_owned(),
            initiated: entry.word("Initiated").and_then(parse_iso8601),
        });
    }
    if truncated(root) {
        let key = root.word("NextKeyMarker").map(|text| encoding.exact(text)).transpose()?;
        let last = page.uploads.last();
        let key = key.or_else(|| last.map(|upload| upload.key.0.clone()));
        let upload_id = root.word("NextUploadIdMarker").or_else(|| last.map(|upload| upload.upload_id.as_str()));
        let key = key.ok_or_else(|| "the listing is cut and says not where to go on".to_owned())?;
        page.next_marker = Some((key, upload_id.unwrap_or_default().to_owned()));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::xml::parse;
    use crate::types::TimeNs;

    #[test]
    fn names_are_decoded_and_a_marker_is_taken_as_told() {
        let body = "<ListBucketResult xmlns='http://www.qcloud.com/document/product/436/7751'>\
            <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextMarker>a%20b%2B%E4%B8%AD/</NextMarker>\
            <Contents><Key>a%0Ax+y</Key><LastModified>1994-11-06T08:49:37.000Z</LastModified>\
            <ETag>&quot;e1&quot;</ETag><Size>5000000000</Size><StorageClass>STANDARD</StorageClass></Contents>\
            <CommonPrefixes><Prefix>a%20b%2B%E4%B8%AD/</Prefix></CommonPrefixes></ListBucketResult>";
        let page = page(&parse(body.as_bytes()).unwrap(), "").unwrap();
        assert_eq!(page.objects[0].key.as_str(), "a\nx+y");
        assert_eq!(page.objects[0].size, 5_000_000_000);
        assert_eq!(page.objects[0].etag.0, "e1");
        assert_eq!(page.objects[0].last_modified, Some(TimeNs::new(784_111_777, 0)));
        assert_eq!(page.objects[0].storage_class, None);
        assert_eq!(page.prefixes, ["a b+\u{4e2d}/"]);
        assert_eq!(page.next_marker.as_deref(), Some("a b+\u{4e2d}/"));
    }

    #[test]
    fn a_missing_marker_is_the_last_name_of_either_kind() {
        let body = "<ListBucketResult><IsTruncated>true</IsTruncated>\
            <Contents><Key>b%20</Key><Size>1</Size></Contents>\
            <CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes></ListBucketResult>";
        let root = parse(body.as_bytes()).unwrap();
        assert_eq!(page(&root, "").unwrap().next_marker.as_deref(), Some("c/"));
        assert_eq!(page(&root, "").unwrap().objects[0].key.as_str(), "b%20");
        assert!(page(&root, "c/").is_err());
        assert!(page(&parse(b"<R><IsTruncated>true</IsTruncated></R>").unwrap(), "").is_err());
    }

    #[test]
    fn names_that_are_not_utf8_are_shown_all_the_same() {
        let body = "<R><EncodingType>url</EncodingType><Contents><Key>%FFx</Key><Size>1</Size></Contents></R>";
        let page = page(&parse(body.as_bytes()).unwrap(), "").unwrap();
        assert_eq!(page.objects[0].key.as_str(), "\u{fffd}x");
        assert_eq!(page.next_marker, None);
    }

    #[test]
    fn an_entry_without_key_or_size_is_no_listing() {
        for body in ["<R><Contents><Size>1</Size></Contents></R>", "<R><Contents><Key>a</Key></Contents></R>"] {
            assert!(page(&parse(body.as_bytes()).unwrap(), "").is_err());
        }
    }

    #[test]
    fn uploads_in_progress() {
        let body = "<R><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <NextKeyMarker>k%2F2</NextKeyMarker><NextUploadIdMarker>u%2</NextUploadIdMarker>\
            <Upload><Key>k%2F2</Key><UploadId>u%2</UploadId><Initiated>1994-11-06T08:49:37.000Z</Initiated></Upload></R>";
        let page = uploads(&parse(body.as_bytes()).unwrap()).unwrap();
        assert_eq!(page.uploads[0].key.as_str(), "k/2");
        assert_eq!(page.next_marker, Some(("k/2".to_owned(), "u%2".to_owned())));
    }
}
