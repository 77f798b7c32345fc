//! `hallmarkd`: the daemon (`serve`), its token workers (`token`) and the configuration check.

fn main() {}
