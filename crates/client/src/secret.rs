//! Secrets of functions, and the keys that seal them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lyra_types::api::{ResealedView, SecretKeysView, SecretRequest, SecretView};
use lyra_types::{Secret, SecretBytes};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

impl Client {
    /// Secrets by name, without their values.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn secrets(&self, limit: usize) -> Result<Listing<SecretView>> {
        self.list(self.at(&["v1", "secrets"]), &[], limit).await
    }

    /// What is known of a secret.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_secret(&self, name: &str) -> Result<Answer<SecretView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "secrets", name]))).await
    }

    /// Sets a secret.
    ///
    /// # Errors
    /// `invalid_field` for a value that is empty or too large.
    pub async fn put_secret(&self, name: &str, value: &SecretBytes) -> Result<Answer<SecretView>> {
        let base64 = Some(Secret::new(STANDARD.encode(value.reveal())));
        let request = self.request(Method::PUT, self.at(&["v1", "secrets", name]));
        self.fetch(request.json(&SecretRequest { value: None, base64 })).await
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// `not_found`; `conflict` where a function is given it, unless forced.
    pub async fn delete_secret(&self, name: &str, force: bool) -> Result<()> {
        let request = self.request(Method::DELETE, self.at(&["v1", "secrets", name]));
        self.send(request.query(&[("force", force)])).await.map(drop)
    }

    /// The keys that seal secrets.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn secret_keys(&self) -> Result<Answer<SecretKeysView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "secret-keys"]))).await
    }

    /// Seals all secrets with the first key of the key file.
    ///
    /// # Errors
    /// `invalid_field` where the key file can't be used.
    pub async fn rotate_secret_key(&self) -> Result<Answer<ResealedView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "secret-keys", "rotate"]))).await
    }
}
