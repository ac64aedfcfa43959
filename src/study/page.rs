//! Pages that open from disk: one HTML file each, with its style, scripts, numbers and bytes inside.
//!
//! A page asks nothing of a network, and its content policy forbids it to. Every page has the same style,
//! `page/theme.css` (light and dark, print, 320 px and wider), and the same few functions, `page/page.js`:
//!
//! ```
//! use elbo::study::page::Page;
//!
//! let html = Page::new("One number")
//!     .json("numbers", &[1.5, 2.5])
//!     .body("<main><h1>One number</h1><p id=\"sum\"></p></main>")
//!     .script("document.getElementById('sum').textContent = json('numbers').reduce((a, b) => a + b);")
//!     .html();
//! assert!(html.starts_with("<!doctype html>") && html.contains("default-src 'none'"));
//! ```

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::engine::error::Result;
use crate::engine::file;

/// The colours of all pages and of the book, light and dark, as variables: what styles and canvases take theirs from.
pub const COLOURS: &str = include_str!("page/colours.css");

/// The style of all pages.
const THEME: &str = include_str!("page/theme.css");

/// What all pages' scripts may call.
const COMMON: &str = include_str!("page/page.js");

/// Nothing is loaded from anywhere; WebAssembly that stands in the page may run.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; \
    img-src data: blob:; worker-src blob:";

/// A page in the making.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    styles: String,
    body: String,
    data: String,
    scripts: String,
}

impl Page {
    /// A page with a title (text, not HTML).
    pub fn new(title: impl Into<String>) -> Page {
        Page {
            title: title.into(),
            styles: String::new(),
            body: String::new(),
            data: String::new(),
            scripts: String::new(),
        }
    }

    /// Adds rules to the common style.
    pub fn style(mut self, css: &str) -> Page {
        self.styles.push_str(css);
        self
    }

    /// Adds HTML. Text that comes from outside goes through [`escaped`] first.
    pub fn body(mut self, html: &str) -> Page {
        self.body.push_str(html);
        self
    }

    /// Adds data that the page's scripts read as `json(id)`.
    pub fn json(mut self, id: &str, value: &(impl Serialize + ?Sized)) -> Page {
        let text = serde_json::to_string(value).expect("the data of a page is plain data");
        // Within a string of JSON this means the same, and no `</script>` can end the element early.
        let text = text.replace('<', "\\u003c");
        writeln!(self.data, "<script type=\"application/json\" id=\"{}\">{text}</script>", escaped(id))
            .expect("memory");
        self
    }

    /// Adds bytes that the page's scripts read as `bytes(id)`.
    pub fn bytes(mut self, id: &str, bytes: &[u8]) -> Page {
        let text = STANDARD.encode(bytes);
        writeln!(self.data, "<script type=\"application/base64\" id=\"{}\">{text}</script>", escaped(id))
            .expect("memory");
        self
    }

    /// Adds a script, run when the body is there, in the order in which they are added and after `page.js`.
    pub fn script(mut self, javascript: &str) -> Page {
        let _ = writeln!(self.scripts, "<script>\n{}\n</script>", javascript.replace("</script", "<\\/script"));
        self
    }

    /// The whole file.
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        let Page { styles, body, data, scripts, .. } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
             <title>{title}</title>\n<style>\n{COLOURS}{THEME}{styles}</style>\n</head>\n<body>\n{body}\n{data}\
             <script>\n{COMMON}</script>\n{scripts}</body>\n</html>\n"
        )
    }

    /// Writes the page, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::File`](crate::Error::File) when the name is that of a folder.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::replace(path, |out| out.write_all(self.html().as_bytes()))
    }
}

/// Text as HTML that shows it, within elements and within quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_within_data_or_scripts_ends_the_element() {
        let html = Page::new("a < b")
            .json("text", "</script><b>")
            .script("const s = '</script>';")
            .body("<main></main>")
            .html();
        assert!(html.contains("<title>a &lt; b</title>"));
        assert!(html.contains("\\u003c/script>\\u003cb>"));
        assert_eq!(html.matches("<script").count(), html.matches("</script>").count());
    }

    #[test]
    fn a_page_names_no_address() {
        let html = Page::new("empty").html();
        assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("//"), "{html}");
    }
}
