//! What the data plane must outlive. Each test prints a figure: `staying up: NAME: FIGURE`.

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod crowds;
mod drain;
mod every_point;
mod faults;
mod privileges;
mod splice_points;
mod strict;
mod takeover;
mod unread;
mod upgrade_points;
