//! A million strings, read by zen-lead and by Go's own time.ParseDuration (e2e/tools/go-duration): the
//! same result, value and text. The bounds of zen-lead's settings are not part of this.
//!
//! `ZEN_LEAD_DURATIONS` sets the number of strings, `ZEN_LEAD_DURATIONS_SEED` the seed.

// clippy.toml allows more in test code, but clippy does not recognize tests in a binary without the
// standard harness.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use zen_lead_core::fixtures::dice::Dice;
use zen_lead_core::settings::duration::parse;

const MILLION: usize = 1_000_000;
const SEED: u64 = 36;

/// Strings on which other readers of Go durations in Rust differ from Go or panic, and the edges of
/// the grammar and of 64 bits.
const KNOWN: [&str; 36] = [
    "0",
    "+0",
    "-0",
    "",
    "-",
    "+",
    "--5s",
    "+-5s",
    "5s-3s",
    "5s",
    "-5s",
    "+5s",
    ".5s",
    "5.s",
    ".s",
    "5",
    "5s0",
    "5s3",
    "1h0",
    "1m-0s",
    "5d",
    "5 s",
    "1.5h",
    "1h30m",
    "1\u{b5}s",
    "1\u{3bc}s",
    "1us",
    "1ns",
    "922337203685477580700s",
    "9223372036854775807ns",
    "9223372036854775808ns",
    "-9223372036854775808ns",
    "-9223372036854775809ns",
    "9223372036.854775808s",
    "9223372036854775808ns9223372036854775808ns",
    "0.830103483285477580700h",
];

const UNITS: [&str; 8] = ["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"];
const NO_UNITS: [&str; 10] = ["", "d", "S", "sec", "\u{b5}", "n", "\u{e9}s", " s", "M", "w"];
/// Where 64 bits of nanoseconds end, in each unit, and around a power of ten above.
const EDGES: [&str; 12] = [
    "9223372036854775807",
    "9223372036854775808",
    "9223372036854775809",
    "9223372036854775",
    "9223372036854",
    "9223372036",
    "153722867",
    "2562047",
    "4611686018427387904",
    "18446744073709551616",
    "922337203685477580",
    "100000000000000000000",
];
const LETTERS: [char; 24] = [
    '0', '1', '5', '9', '.', '-', '+', 'h', 'm', 's', 'n', 'u', '\u{b5}', '\u{3bc}', ' ', 'e',
    '\n', '\0', '"', '\\', '\u{e9}', '\u{65e5}', '_', '\u{7f}',
];

/// Draws strings.
struct Texts(Dice);

impl Texts {
    fn digits(&mut self, most: usize) -> String {
        let length = self.0.below(most + 1);
        (0..length).map(|_| self.0.of(&['0', '0', '1', '2', '5', '7', '9', '9'])).collect()
    }

    fn term(&mut self) -> String {
        let mut text = if self.0.one_in(6) { self.0.of(&EDGES).to_owned() } else { self.digits(4) };
        if self.0.one_in(12) {
            text.push_str(&self.digits(20));
        }
        if self.0.one_in(2) {
            text.push('.');
            let most = if self.0.one_in(3) { 30 } else { 9 };
            text.push_str(&self.digits(most));
        }
        text.push_str(if self.0.one_in(12) { self.0.of(&NO_UNITS) } else { self.0.of(&UNITS) });
        text
    }

    /// A string that follows the grammar, or nearly does.
    fn text(&mut self) -> String {
        if self.0.one_in(20) {
            let length = self.0.below(12);
            return (0..length).map(|_| self.0.of(&LETTERS)).collect();
        }
        let mut text =
            if self.0.one_in(3) { self.0.of(&["-", "+"]).to_owned() } else { String::new() };
        let terms = 1 + self.0.below(3);
        (0..terms).for_each(|_| text.push_str(&self.term()));
        if self.0.one_in(4) {
            let mut letters: Vec<char> = text.chars().collect();
            let at = self.0.below(letters.len() + 1);
            match self.0.below(3) {
                0 => letters.insert(at, self.0.of(&LETTERS)),
                1 if at < letters.len() => drop(letters.remove(at)),
                _ if at < letters.len() => letters[at] = self.0.of(&LETTERS),
                _ => {}
            }
            text = letters.into_iter().collect();
        }
        text
    }
}

/// Go's answers, in order.
fn ask_go(program: &str, texts: &[String]) -> Result<Vec<String>, Failed> {
    let mut go = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut to = BufWriter::new(go.stdin.take().unwrap());
    let from = BufReader::new(go.stdout.take().unwrap());
    let answers = std::thread::scope(|scope| {
        scope.spawn(move || {
            for text in texts {
                text.bytes().for_each(|byte| write!(to, "{byte:02x}").unwrap());
                to.write_all(b"\n").unwrap();
            }
        });
        // By hand, because a line may have bytes that are not UTF-8.
        from.split(b'\n')
            .map(|line| Ok(String::from_utf8(line?)?))
            .collect::<Result<Vec<_>, Failed>>()
    })?;
    let status = go.wait()?;
    if !status.success() || answers.len() != texts.len() {
        return Err(
            format!("{status}, {} answers to {} strings", answers.len(), texts.len()).into()
        );
    }
    Ok(answers)
}

/// Compares all of them; returns how many are durations.
fn compare(program: &str, texts: &[String]) -> Result<usize, Failed> {
    let mut good = 0;
    let mut differ = Vec::new();
    for (text, go) in texts.iter().zip(ask_go(program, texts)?) {
        let ours = parse(text);
        good += usize::from(ours.is_ok());
        let ours = ours.map_or_else(|error| error.to_string(), |nanos| nanos.to_string());
        if ours != go {
            differ.push(format!("{text:?}: Go says {go:?}, zen-lead {ours:?}"));
        }
    }
    if differ.is_empty() {
        return Ok(good);
    }
    let shown = differ[..differ.len().min(10)].join("\n");
    Err(format!("{} of {} strings are read differently:\n{shown}", differ.len(), texts.len())
        .into())
}

fn known(program: &str) -> Result<(), Failed> {
    compare(program, &KNOWN.map(str::to_owned)).map(|_| ())
}

fn generated(program: &str) -> Result<(), Failed> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let all = number("ZEN_LEAD_DURATIONS").map_or(MILLION, |n| usize::try_from(n).unwrap());
    let seed = number("ZEN_LEAD_DURATIONS_SEED").unwrap_or(SEED);
    let mut texts = Texts(Dice::from_state(seed));
    let mut good = 0;
    let mut left = all;
    while left > 0 {
        let some: Vec<String> = (0..left.min(MILLION)).map(|_| texts.text()).collect();
        left -= some.len();
        good += compare(program, &some).map_err(|e| {
            Failed::from(format!("seed {seed}: {}", e.message().unwrap_or_default()))
        })?;
    }
    println!(
        "durations: {all} strings from seed {seed}, {good} of them durations, all as Go reads them"
    );
    // Otherwise this would prove little about values.
    if good * 4 < all { Err("too few of the strings are durations".into()) } else { Ok(()) }
}

/// The kept inputs of the fuzz target: fuzz/corpus/duration, and target/fuzz/duration if it ran here.
fn fuzzed(program: &str) -> Result<(), Failed> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for directory in ["fuzz/corpus/duration", "target/fuzz/duration"] {
        let Ok(files) = std::fs::read_dir(directory) else { continue };
        for file in files {
            // An annotation is always UTF-8.
            match String::from_utf8(std::fs::read(file?.path())?) {
                Ok(text) => texts.push(text),
                Err(_) => bytes += 1,
            }
        }
    }
    let good = compare(program, &texts)?;
    println!(
        "durations: {} inputs of the fuzz target, {good} of them durations, all as Go reads them; \
         {bytes} more are not UTF-8",
        texts.len()
    );
    if texts.len() < 100 { Err("the corpus is missing".into()) } else { Ok(()) }
}

type Run = fn(&str) -> Result<(), Failed>;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let program = std::env::var("GO_DURATION").ok().filter(|p| !p.is_empty());
    let skipped = program.is_none() && std::env::var("CI").as_deref() != Ok("true");
    if program.is_none() && !args.list {
        println!("not run without GO_DURATION (e2e/cluster.sh up; source target/cluster/env): all");
    }
    let tests: [(&str, Run); 3] = [
        ("known_strings_are_read_as_go_reads_them", known),
        ("inputs_of_the_fuzz_target_are_read_as_go_reads_them", fuzzed),
        ("a_million_strings_are_read_as_go_reads_them", generated),
    ];
    let trials = tests.map(|(name, run)| {
        let program = program.clone();
        let test = move || run(&program.ok_or("GO_DURATION is not set")?);
        Trial::test(name, test).with_ignored_flag(skipped)
    });
    libtest_mimic::run(&args, trials.into()).exit_code()
}
