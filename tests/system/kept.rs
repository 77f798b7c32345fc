//! One connection that is kept, over plain HTTP: every request and every end of it is seen.

use crate::process::SOON;
use crate::stage::Stage;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

pub(crate) struct Kept(BufReader<TcpStream>);

/// The head of an answer, in lower case; its body was read.
#[derive(Debug)]
pub(crate) struct Head(String);

impl Kept {
    pub(crate) fn open(stage: &Stage) -> Self {
        let address = stage.json(&["status"])["http"].as_str().unwrap().to_owned();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn get(&mut self, path: &str) -> Head {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).unwrap(), 0, "hung up: {head:?}");
        }
        let head = Head(head.to_lowercase());
        let length: usize = head.value("content-length").unwrap().parse().unwrap();
        self.0.read_exact(&mut vec![0; length]).unwrap();
        head
    }

    /// Waits until the daemon has closed it, in order.
    pub(crate) fn comes_to_its_end(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

impl Head {
    pub(crate) fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
