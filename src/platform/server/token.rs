//! The bearer token of scrapes: a file with a secret that a request for `/metrics` has to carry.
//!
//! The file is read again when it changes. Which paths ask for the token is `admin`'s.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::platform::files::Reread;

/// Why a file was not taken as a token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file is missing or cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, io::Error),
    /// The file holds nothing that a header can carry.
    #[error(
        "{0} holds no token: write one line of visible ASCII characters without spaces, for example the output \
         of `openssl rand -hex 32`"
    )]
    Unusable(PathBuf),
}

/// A token, and the file that it comes from.
pub struct Token {
    file: PathBuf,
    current: ArcSwap<Vec<u8>>,
}

impl Token {
    /// Reads the file. Space around the token is not part of it.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn load(file: PathBuf) -> Result<Arc<Self>, TokenError> {
        let content = std::fs::read(&file).map_err(|e| TokenError::File(file.clone(), e))?;
        let token = Self { file, current: ArcSwap::default() };
        token.take(&content)?;
        Ok(Arc::new(token))
    }

    /// Whether the content is another token than before.
    fn take(&self, content: &[u8]) -> Result<bool, TokenError> {
        let token = content.trim_ascii();
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Unusable(self.file.clone()));
        }
        let is_new = *token != **self.current.load();
        if is_new {
            self.current.store(Arc::new(token.to_owned()));
        }
        Ok(is_new)
    }

    /// Whether the request carries the token, as RFC 6750 section 2.1 writes it. Takes as long for a wrong token
    /// of the same length as for the right one.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some((scheme, given)) = given.and_then(|value| value.split_at_checked("Bearer ".len()))
        else {
            return false;
        };
        let current = self.current.load();
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.ct_eq(current.as_slice()))
    }
}

impl Reread for Arc<Token> {
    const WHAT: &'static str = "token of scrapes";
    type Error = TokenError;

    async fn reread(&mut self) -> Result<Option<String>, TokenError> {
        let content = tokio::fs::read(&self.file).await;
        let content = content.map_err(|e| TokenError::File(self.file.clone(), e))?;
        let is_new = self.take(&content)?;
        Ok(is_new.then(|| format!("token of scrapes loaded from {}", self.file.display())))
    }
}

/// Without the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::NamedTempFile;

    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        [(header::AUTHORIZATION, authorization.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn only_the_whole_token_opens() {
        let file = NamedTempFile::new().unwrap();
        fs::write(&file, " s3cret\n").unwrap();
        let token = Token::load(file.path().to_owned()).unwrap();
        assert!(token.is_in(&headers("Bearer s3cret")) && token.is_in(&headers("bearer s3cret")));
        let wrong =
            ["", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret"];
        for wrong in wrong {
            assert!(!token.is_in(&headers(wrong)), "{wrong:?}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_new_token_takes_the_place_of_the_old_one() {
        let file = NamedTempFile::new().unwrap();
        let missing = Token::load("/nowhere".into()).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read "), "{missing}");
        for unusable in ["", " \n", "two words", "caf\u{e9}"] {
            fs::write(&file, unusable).unwrap();
            let error = Token::load(file.path().to_owned()).unwrap_err().to_string();
            assert!(error.contains("write one line of visible ASCII characters"), "{error}");
        }
        fs::write(&file, "old").unwrap();
        let mut token = Token::load(file.path().to_owned()).unwrap();
        assert_eq!(token.reread().await.unwrap(), None, "nothing changed");
        fs::write(&file, "new").unwrap();
        assert!(token.reread().await.unwrap().is_some());
        assert!(token.is_in(&headers("Bearer new")) && !token.is_in(&headers("Bearer old")));
        fs::write(&file, "").unwrap();
        token.reread().await.unwrap_err();
        assert!(token.is_in(&headers("Bearer new")), "an unusable file changes nothing");
    }
}
