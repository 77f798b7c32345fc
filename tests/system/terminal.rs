//! A terminal with an operator at it: a program runs in it, by `script`, and a test types.

use crate::process::until;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

pub(crate) struct Terminal {
    process: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Runs this line of a shell in a new terminal.
    pub(crate) fn open(line: &str) -> Self {
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("TERM", "xterm");
        let mut process = command.spawn().unwrap();
        let (keys, mut out) = (
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                shown
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self {
            process,
            keys,
            screen,
        }
    }

    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits for a question, and types.
    pub(crate) fn answer(&mut self, question: &str, typed: &str) {
        self.shows(question);
        self.screen.lock().unwrap().clear();
        self.keys.write_all(typed.as_bytes()).unwrap();
    }

    pub(crate) fn shows(&self, text: &str) {
        until(text, || self.screen().contains(text).then_some(()));
    }

    /// Waits for a list, and moves down to the line with this text.
    pub(crate) fn choose(&mut self, question: &str, line: &str) {
        let last = "another token, by its PKCS#11 module";
        self.shows(last);
        let screen = self.screen();
        let lines = screen
            .lines()
            .skip_while(|it| !it.contains(question))
            .skip(1);
        let down = lines.take_while(|it| !it.contains(line)).count();
        self.answer(question, &format!("{}\r", "\x1b[B".repeat(down)));
    }

    pub(crate) fn code(mut self) -> Option<i32> {
        until("the program ends", || self.process.try_wait().unwrap()).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- on the terminal\n{}", self.screen());
        }
    }
}
