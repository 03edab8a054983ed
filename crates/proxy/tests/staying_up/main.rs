//! What the data plane must outlive. Each test prints a figure: `staying up: NAME: FIGURE`.

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod crowds;
mod drain;
mod faults;
mod privileges;
mod takeover;
mod unread;
