//! Answers: the typed value and the JSON it was read from.

use std::ops::Deref;

use lyra_types::api::Page;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A typed answer that remembers the JSON it came as.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// The value.
    pub value: T,
    json: Box<RawValue>,
}

impl<T> Answer<T> {
    /// The JSON, exactly as the server sent it.
    pub fn json(&self) -> &str {
        self.json.get()
    }
}

impl<T: DeserializeOwned> Answer<T> {
    /// Reads `json`.
    ///
    /// # Errors
    /// When it is not JSON or not a `T`.
    pub(crate) fn read(json: &[u8]) -> serde_json::Result<Answer<T>> {
        Answer::from_raw(serde_json::from_slice(json)?)
    }

    fn from_raw(json: Box<RawValue>) -> serde_json::Result<Answer<T>> {
        Ok(Answer { value: serde_json::from_str(json.get())?, json })
    }
}

impl<T> Deref for Answer<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Items of a list, from one page or several, with the cursor of what comes after them.
#[derive(Debug, Clone)]
pub struct Listing<T> {
    /// The items.
    pub items: Vec<Answer<T>>,
    /// Cursor of the next page; `None` when all are here.
    pub next: Option<String>,
}

impl<T: DeserializeOwned> Listing<T> {
    pub(crate) fn read(json: &[u8]) -> serde_json::Result<Listing<T>> {
        let page: Page<Box<RawValue>> = serde_json::from_slice(json)?;
        let items = page.items.into_iter().map(Answer::from_raw).collect::<serde_json::Result<_>>()?;
        Ok(Listing { items, next: page.next })
    }
}

impl<T> Listing<T> {
    /// The list as the API would send it in one page: `{"items":[…],"next":…}`.
    pub fn json(&self) -> String {
        let items: Vec<&str> = self.items.iter().map(Answer::json).collect();
        let next = self.next.as_ref().map_or_else(|| "null".to_owned(), |next| serde_json::json!(next).to_string());
        format!("{{\"items\":[{}],\"next\":{next}}}", items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Named {
        name: String,
    }

    #[test]
    fn keeps_the_json_as_it_was_sent_with_fields_it_does_not_know() {
        let json = r#"{ "later":1,"name":"a" }"#;
        let answer: Answer<Named> = Answer::read(json.as_bytes()).expect("reads");
        assert_eq!((answer.name.as_str(), answer.json()), ("a", json));
    }

    #[test]
    fn a_list_prints_as_a_page() {
        let page = r#"{"items":[{"name":"a"},{"name":"b","x":[1]}],"next":"c\"1"}"#;
        let list: Listing<Named> = Listing::read(page.as_bytes()).expect("reads");
        assert_eq!(list.items.len(), 2);
        assert_eq!(list.json(), page);
        let empty: Listing<Named> = Listing::read(br#"{"items":[],"next":null}"#).expect("reads");
        assert_eq!(empty.json(), r#"{"items":[],"next":null}"#);
    }
}
