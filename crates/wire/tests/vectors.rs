//! Rust's side of `vectors/`; Python's is `tests/unit/wire/test_vectors.py`. The same bytes and the
//! same verdicts in both languages.

use hyperfleet_wire::{control, decode, encode, files, guest, length, slip, WireError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Message {
    name: String,
    direction: String,
    message: serde_json::Value,
    payload: String,
    frame: String,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    stream: Vec<Part>,
    verdicts: Vec<String>,
}

#[derive(Deserialize)]
struct Part {
    hex: String,
    times: usize,
}

#[derive(Deserialize)]
struct BadPayload {
    name: String,
    direction: String,
    payload: String,
}

fn vectors<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = format!("{}/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn agree<T>(vector: &Message)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let name = &vector.name;
    let message: T = serde_json::from_value(vector.message.clone()).expect(name);
    let payload = bytes(&vector.payload);
    assert_eq!(encode(&message), payload, "{name}");
    assert_eq!(decode::<T>(&payload).as_ref(), Ok(&message), "{name}");
}

#[test]
fn guest_messages_and_frames() {
    for vector in vectors::<Message>("guest.json") {
        match vector.direction.as_str() {
            "to_guest" => agree::<guest::ToGuest>(&vector),
            _ => agree::<guest::FromGuest>(&vector),
        }
        let mut frame = Vec::new();
        slip::write(&bytes(&vector.payload), &mut frame).unwrap();
        assert_eq!(frame, bytes(&vector.frame), "{}", vector.name);
    }
}

#[test]
fn messages_about_files_and_their_frames() {
    for vector in vectors::<Message>("files.json") {
        agree::<files::FileMessage>(&vector);
        let mut frame = Vec::new();
        length::write(&bytes(&vector.payload), &mut frame).unwrap();
        assert_eq!(frame, bytes(&vector.frame), "{}", vector.name);
    }
}

#[test]
fn control_messages_and_frames() {
    for vector in vectors::<Message>("control.json") {
        match vector.direction.as_str() {
            "to_proxy" => {
                agree::<control::ToProxy>(&vector);
                let payload = bytes(&vector.payload);
                let general = decode(&payload);
                assert_eq!(
                    control::ToProxy::decode(&payload),
                    general,
                    "{}",
                    vector.name
                );
            }
            _ => agree::<control::FromProxy>(&vector),
        }
        let mut frame = Vec::new();
        length::write(&bytes(&vector.payload), &mut frame).unwrap();
        assert_eq!(frame, bytes(&vector.frame), "{}", vector.name);
    }
}

#[test]
fn streams_of_frames_get_their_verdicts_however_they_are_cut() {
    for vector in vectors::<Stream>("slip_streams.json") {
        let parts = vector.stream.iter();
        let stream: Vec<u8> = parts
            .flat_map(|part| bytes(&part.hex).repeat(part.times))
            .collect();
        for piece in [1, 7, 4096, stream.len()] {
            let mut reader = slip::Reader::new();
            let mut verdicts = Vec::new();
            for chunk in stream.chunks(piece) {
                reader.feed(chunk, |frame| verdicts.push(verdict(frame)));
            }
            assert_eq!(
                verdicts, vector.verdicts,
                "{} in pieces of {piece}",
                vector.name
            );
        }
    }
}

fn verdict(frame: Result<&[u8], WireError>) -> String {
    match frame {
        Ok(payload) if payload.len() == slip::MAX_PAYLOAD => "largest".into(),
        Ok(payload) => payload.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(WireError::TooLarge(_)) => "too_large".into(),
        Err(WireError::Corrupt(_)) => "corrupt".into(),
        Err(WireError::Unknown(_)) => "unknown".into(),
    }
}

#[test]
fn payloads_that_are_no_message_are_refused() {
    for BadPayload {
        name,
        direction,
        payload,
    } in vectors("guest_bad_payloads.json")
    {
        let payload = bytes(&payload);
        let refused = match direction.as_str() {
            "to_guest" => decode::<guest::ToGuest>(&payload).err(),
            _ => decode::<guest::FromGuest>(&payload).err(),
        };
        assert!(refused.is_some(), "{direction}: {name}");
    }
}

#[test]
fn a_part_of_a_table_is_read_as_strictly_as_any_message() {
    let machine = control::Machine {
        id: "a".to_owned(),
        name: "web".to_owned(),
        status: "running".to_owned(),
        lifecycle: 1,
        ports: Vec::new(),
    };
    let part = control::ToProxy::SnapshotPart {
        machines: vec![machine; 3],
    };
    let payload = encode(&part);
    assert_eq!(control::ToProxy::decode(&payload), Ok(part));
    for cut in 0..payload.len() {
        let cut = &payload[..cut];
        let general = decode::<control::ToProxy>(cut).unwrap_err();
        assert_eq!(control::ToProxy::decode(cut), Err(general));
    }
    let longer = [&payload[..], &[0]].concat();
    let corrupt = control::ToProxy::decode(&longer).unwrap_err();
    assert!(matches!(corrupt, WireError::Corrupt(_)), "{corrupt}");
}

#[test]
fn a_port_is_read_the_same_whether_its_defaults_are_said_or_not() {
    #[derive(Serialize)]
    struct Verbose<'a> {
        port: u16,
        upstream: Option<&'a str>,
        listening: bool,
        host: Option<&'a str>,
        strip_prefix: bool,
        /// Of a control plane that is newer than this data plane.
        to_come: u8,
    }
    let upstream = "127.0.0.1:9001";
    let payload = encode(&Verbose {
        port: 80,
        upstream: Some(upstream),
        listening: true,
        host: None,
        strip_prefix: true,
        to_come: 1,
    });
    let port = control::Port::new(80, Some(upstream.to_owned()), true);
    assert_eq!(decode::<control::Port>(&payload), Ok(port.clone()));
    assert!(encode(&port).len() < payload.len());
    assert_eq!(decode::<control::Port>(&encode(&port)), Ok(port));
}
