//! From a path to texts: a file, standard input, or the files below a directory. What the texts contain is not
//! looked at here.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The names of files that may contain Services, by their end; of a directory, no other file is read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A path, and its text or why it cannot be read.
pub type Text = (String, Result<String, String>);

/// The texts of a path (`-` is standard input), those of a directory in the order of their paths.
pub fn read(path: &str) -> Vec<Text> {
    if path != "-" && Path::new(path).is_dir() {
        return below(path);
    }
    vec![(path.to_owned(), text(path).map_err(|error| error.to_string()))]
}

fn text(path: &str) -> io::Result<String> {
    if path == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(path)
}

fn below(directory: &str) -> Vec<Text> {
    let mut found = Vec::new();
    let mut failed = Vec::new();
    collect(Path::new(directory), &mut found, &mut failed);
    if found.is_empty() && failed.is_empty() {
        let why = "the directory has no file that ends with .yaml, .yml or .json";
        return vec![(directory.to_owned(), Err(why.to_owned()))];
    }
    found.sort();
    let texts = found.into_iter().map(|path| {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string());
        (path.display().to_string(), text)
    });
    failed.into_iter().chain(texts).collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>, failed: &mut Vec<Text>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            return failed.push((directory.display().to_string(), Err(error.to_string())));
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        // A link to a directory is not followed: it may lead in a circle.
        if path.is_dir() && !path.is_symlink() {
            collect(&path, found, failed);
        } else if path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)) {
            found.push(path);
        }
    }
}
