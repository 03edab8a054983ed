"""Every field of every endpoint, wrong in type, range or name: 400 that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Api, error

GOOD = {"name": "web", "vcpu_count": 1, "mem_size_mib": 128}
EXEC = {"cmd": ["true"]}
KEY = {"name": "ci", "scopes": ["machines:read"]}

# What is no string, no whole number, no list, no object of strings.
NO_STRING: list[Any] = [1, 1.5, True, ["a"], {"a": "b"}, "nul\0", "\ud800"]
NO_INTEGER: list[Any] = ["1", 1.5, True, None, [1], {"a": 1}, ""]
NO_OBJECT: list[Any] = [1, "a=b", True, None, ["a"], [["a", "b"]]]

NO_HOST: tuple[Any, ...] = (
    1, True, [], {}, "", "a b", "a\n", "a/b", "u@a", "http://a", "a:", "a:0", "a:65536", "a:8x",
    "é", "%41", "[::1", "[]", "[::1]x", "[fe80::1%25eth0]", "[1:2]", "a" * 254,
)  # fmt: skip
NO_FLAG: tuple[Any, ...] = (None, 0, 1, "false", [], {})
MACHINE_FIELDS: dict[str, list[Any]] = {
    "name": [None, *NO_STRING, "", "A", "-a", "a-", "a.b", "a_b", "a" * 64, "é", "a\n", " a"],
    "vcpu_count": [*NO_INTEGER, 0, -1, 9, 10**30],
    "mem_size_mib": [*NO_INTEGER, 3, 0, -128],
    "kernel_image_path": [*NO_STRING, "", "a" * 4097],
    "kernel_args": [*NO_STRING, "new\nline", "é", "a" * 2049],
    "rootfs_path": [*NO_STRING, "", "a" * 4097],
    "exposed_ports": [
        None, 80, "80", True, {"80": 80}, ["80"], [80.5], [True], [None], [[80]], [0], [-1],
        [65536], [80, 80], [10**30], list(range(1, 514)),
    ],
    "env": [*NO_OBJECT, {"A": 1}, {"A": None}, {"1A": "x"}, {"": "x"}, {"A B": "x"}, {"A": "\0"},
            {"A=B": "x"}, {"A": "x" * 32769}, {"A": ["x"]}, {f"A{n}": "" for n in range(513)},
            {f"A{n}": "x" * 32768 for n in range(4)}],
    "labels": [*NO_OBJECT, {"a": 1}, {"a": None}, {"": "x"}, {"a b": "x"}, {"-a": "x"},
               {"a" * 64: "x"}, {"a": "x" * 256}, {"a": "\0"}, {f"a{n}": "" for n in range(65)}],
    "restart": [*NO_STRING, "", "on_failure", "Always", "no"],
    "autostart": [None, 0, 1, "true", "", [True], {}],
    "sleep_after_s": [None, -1, 1.5, "60", True, 31_536_001, 10**30, [60], {}],
    "disks": [None, "db", {}, ["db"], [{"disk": "db"}], [{"disk": "db", "path": "/"}]],
    "port_options": [
        *NO_OBJECT, {"": {}}, {"0": {}}, {"080": {}}, {"65536": {}}, {"99999": {}}, {"-1": {}},
        {"x": {}}, {"80": None}, {"80": "localhost"}, {"80": []}, {"80": {"prefix": "/"}},
        *({"80": {"host": host}} for host in NO_HOST),
        *({"80": {"strip_prefix": strip}} for strip in NO_FLAG),
        {str(port): {} for port in range(1, 514)},
    ],
    "disk_size_mib": [0, 15, "64", 64.5, True, 8_388_609, [64], {}],
    "cmd": ["ls -l", 1, True, {"a": "b"}, [1], [None], [["a"]], ["nul\0"], ["\ud800"],
            ["x"] * 4097, ["x" * 65536]],
    "cwd": [*NO_STRING, "", "a" * 4096, "nul\0"],
    "egress": [
        None, 0, True, {}, "", "ALL", "some", [], ["all"], [None], [{}], [{"ports": [80]}],
        [{"network": None}], [{"network": 1}], [{"network": "example.com"}], [{"network": "::/0"}],
        [{"network": "10.0.0.1/8"}], [{"network": "10.0.0.0/33"}], [{"network": "10.0.0/8"}],
        [{"network": "10.0.0.0/08/"}], [{"network": "256.0.0.1"}], [{"network": "1.1.1.1", "x": 1}],
        *([{"network": "1.1.1.1", "ports": bad}] for bad in (
            None, 80, "80", [], ["80"], [0], [65536], [80, 80], [True], list(range(1, 66)))),
        *([{"network": "1.1.1.1", "protocol": bad}] for bad in (None, "", "icmp", "TCP", 6)),
        [{"network": "1.1.1.1"}] * 65,
    ],
}  # fmt: skip
CHANGE_FIELDS = {
    name: MACHINE_FIELDS[name]
    for name in (
        "exposed_ports",
        "labels",
        "restart",
        "autostart",
        "egress",
        "sleep_after_s",
        "disks",
        "port_options",
    )
}
CHANGES = ", ".join(CHANGE_FIELDS)
EXEC_FIELDS: dict[str, list[Any]] = {
    "cmd": ["ls -l", 1, True, {"a": "b"}, [], [1], [None], [["a"]], ["nul\0"], ["\ud800"]],
    "timeout": ["30", True, None, [1], 0, 0.09, 3600.1, -1, 10**400],
    "cwd": [*NO_STRING, "", "a" * 4096],
    "env": [*NO_OBJECT, {"A": 1}, {"1A": "x"}, {"A": "\0"}],
    "stdin": [None, 1, 1.5, True, ["a"], {"a": "b"}, "\ud800"],
}
KEY_FIELDS: dict[str, list[Any]] = {
    "name": [None, 1, True, ["a"], {"a": "b"}, "", "a" * 101, "a\nb", "nul\0", "\ud800"],
    "scopes": [None, "machines:read", 1, True, {}, [], [1], [None], ["machines"], ["MACHINES:READ"],
               ["machines:read", "machines:read"]],
    "expires_at": [1, 1900000000, True, [], {}, "", "soon", "2030-01-31", "2030-01-31T12:00:00",
                   "2001-01-31T12:00:00Z", "2030-13-31T12:00:00Z"],
}  # fmt: skip

QUERIES = {
    "/machines": {
        "status": ["", "RUNNING", "gone", "1"],
        "label": ["", "=", "=x"],
        "limit": ["", "0", "501", "-1", "1.5", "x", "+1", "1_0", " 1", "\u0661", "1" * 30],
        "offset": ["", "-1", "1.5", "x", "1" * 30],
    },
    "/machines/web/wait": {
        "status": ["", "RUNNING", "gone"],
        "timeout": ["", "0", "0.9", "300.1", "-1", "x", "nan", "inf", "1e2", "1_0", " 5"],
    },
    "/machines/web/logs": {"tail": ["", "0", "-1", "1.5", "x"]},
}


async def _refused(api: Api, path: str, body: Any, field: str, *, method: str = "POST") -> None:
    # json.dumps, not httpx's: lone surrogates and huge numbers have to go out as they are.
    answer = await api.client.request(
        method, path, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    status, code, message = error(answer)
    assert (status, code) == (400, "VALIDATION_ERROR"), (body, message)
    assert field in message, body
    assert api.fleet.list(status=None, labels=(), limit=9, offset=0)[1] <= 1


@pytest.mark.parametrize("field", MACHINE_FIELDS)
async def test_machine(api: Api, field: str) -> None:
    for value in MACHINE_FIELDS[field]:
        await _refused(api, "/machines", GOOD | {field: value}, field)


@pytest.mark.parametrize("field", CHANGE_FIELDS)
async def test_change(api: Api, field: str) -> None:
    ref = await api.machine(exposed_ports=[80], labels={"a": "b"})
    before = api.fleet.get(ref)
    for value in CHANGE_FIELDS[field]:
        wrong = {"exposed_ports": [81], "labels": {}} | {field: value}
        await _refused(api, "/machines/web", wrong, field, method="PATCH")
        assert api.fleet.get(ref) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"",
            "A body is needed: a JSON object that may hold " + CHANGES,
        ),
        (
            b"{}",
            "The body must be a JSON object with one or more of " + CHANGES,
        ),
        (
            b"[]",
            "The body must be a JSON object that may hold " + CHANGES,
        ),
        (
            b"null",
            "The body must be a JSON object that may hold " + CHANGES,
        ),
        (
            b'{"colour": 1}',
            'unknown field "colour"; known are ' + CHANGES,
        ),
        (b'{"exposed_port": [80]}', 'unknown field "exposed_port"; did you mean exposed_ports?'),
        (
            b'{"name": "x", "labels": {}}',
            'unknown field "name"; known are ' + CHANGES,
        ),
    ],
)
async def test_a_change_of_nothing_or_of_something_else(
    api: Api, content: bytes, said: str
) -> None:
    await api.machine()
    answer = await api.client.patch(
        "/machines/web", content=content, headers={"Content-Type": "application/json"}
    )
    assert error(answer) == (400, "VALIDATION_ERROR", said)


@pytest.mark.parametrize("field", EXEC_FIELDS)
async def test_exec(api: Api, field: str) -> None:
    for value in EXEC_FIELDS[field]:
        await _refused(api, "/machines/web/exec", EXEC | {field: value}, field)


@pytest.mark.parametrize("field", KEY_FIELDS)
async def test_key(api: Api, field: str) -> None:
    for value in KEY_FIELDS[field]:
        await _refused(api, "/keys", KEY | {field: value}, field)


@pytest.mark.parametrize(
    ("path", "base", "required"),
    [
        ("/machines", GOOD, ["name", "vcpu_count", "mem_size_mib"]),
        ("/machines/web/exec", EXEC, ["cmd"]),
        ("/keys", KEY, ["name", "scopes"]),
    ],
)
async def test_missing_and_unknown_fields(
    api: Api, path: str, base: dict[str, Any], required: list[str]
) -> None:
    for field in required:
        without = {name: value for name, value in base.items() if name != field}
        await _refused(api, path, without, f"{field} is required")
    await _refused(api, path, base | {"colour": "red"}, 'unknown field "colour"')
    await _refused(api, path, base | {"nam": "x", "cmdd": ["x"]}, "did you mean")


@pytest.mark.parametrize("path", QUERIES)
async def test_query(api: Api, path: str) -> None:
    needed = {"status": "running"} if path.endswith("wait") else {}
    for name, values in QUERIES[path].items():
        for value in values:
            answer = await api.client.get(path, params=needed | {name: value})
            status, code, message = error(answer)
            assert (status, code) == (400, "VALIDATION_ERROR"), value
            assert f"{name} must be" in message


async def test_unknown_query_parameter(api: Api) -> None:
    for path, operations in api.app.openapi()["paths"].items():
        for method in operations:
            url = path.replace("{id}", "web")
            answer = await api.client.request(method, url, params={"colour": "red"})
            assert error(answer)[:2] == (400, "VALIDATION_ERROR"), url
            assert 'unknown query parameter "colour"' in error(answer)[2]


async def test_a_query_parameter_twice(api: Api) -> None:
    answer = await api.client.get("/machines?limit=1&limit=2")
    assert error(answer)[0] == 400
    assert "limit stands in the query twice" in error(answer)[2]
    assert (await api.client.get("/machines?label=a&label=b=c")).status_code == 200


@pytest.mark.parametrize("value", ["", "1", "True", "yes"])
async def test_force(api: Api, value: str) -> None:
    answer = await api.client.delete("/machines/web", params={"force": value})
    assert error(answer)[:2] == (400, "VALIDATION_ERROR")
    assert "force must be true or false" in error(answer)[2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "A body is needed"),
        (b"{", "not JSON"),
        (b'{"name": NaN}', "NaN is no JSON value"),
        (b'{"name": "a", "name": "b"}', '"name" stands there twice'),
        (b'{"name": "\xff"}', "not UTF-8 (byte 10)"),
        (b'{"name": "a"} x', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 60000, "nested too deep"),
        (b'{"vcpu_count": ' + b"9" * 5000 + b"}", "not JSON that we take"),
        (b"null", "The body must be a JSON object"),
        (b"[]", "The body must be a JSON object"),
        (b'"x"', "The body must be a JSON object"),
        (b"1", "The body must be a JSON object"),
    ],
)
async def test_bodies_that_are_no_object(api: Api, content: bytes, said: str) -> None:
    for path in ("/machines", "/machines/web/exec", "/keys"):
        answer = await api.client.post(
            path, content=content, headers={"Content-Type": "application/json"}
        )
        assert error(answer)[:2] == (400, "VALIDATION_ERROR")
        assert said in error(answer)[2]


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml"]
)
async def test_another_content_type(api: Api, media_type: str) -> None:
    answer = await api.client.post(
        "/machines", content=json.dumps(GOOD), headers={"Content-Type": media_type}
    )
    assert error(answer)[:2] == (400, "VALIDATION_ERROR")
    assert "Content-Type must be application/json" in error(answer)[2]


async def test_content_type_with_parameters_is_fine(api: Api) -> None:
    answer = await api.client.post(
        "/machines",
        content=json.dumps(GOOD),
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/machines/web/start"),
        ("POST", "/machines/web/stop"),
        ("POST", "/machines/web/restart"),
        ("DELETE", "/machines/web"),
    ],
)
async def test_a_body_where_none_is_taken(api: Api, method: str, path: str) -> None:
    await api.machine()
    answer = await api.client.request(method, path, json={"force": True})
    assert error(answer) == (400, "VALIDATION_ERROR", "This endpoint takes no body")


async def test_both_names_of_the_command(api: Api) -> None:
    await _refused(api, "/machines/web/exec", {"cmd": ["a"], "command": ["a"]}, "pass one of them")


async def test_a_string_for_the_command_says_to_pass_a_list(api: Api) -> None:
    for name in ("cmd", "command"):
        await _refused(api, "/machines/web/exec", {name: "ls -l"}, 'pass ["ls", "-l"]')


async def test_everything_wrong_is_said_at_once(api: Api) -> None:
    await _refused(api, "/machines", {"name": "A", "vcpu_count": 0, "mem": 1}, "name must be")
    await _refused(api, "/machines", {"name": "A", "vcpu_count": 0, "mem": 1}, "vcpu_count must be")
    await _refused(api, "/machines", {"name": "A", "vcpu_count": 0, "mem": 1}, "mem_size_mib is")


async def test_a_whole_number_is_one_however_it_is_written(api: Api) -> None:
    made = await api.client.post(
        "/machines",
        content=b'{"name":"a","vcpu_count":1.0,"mem_size_mib":1.28e2,"exposed_ports":[80.0]}',
        headers={"Content-Type": "application/json"},
    )
    assert made.status_code == 201
    assert (made.json()["mem_size_mib"], made.json()["exposed_ports"]) == (128, [80])


async def test_a_body_over_the_limit(api: Api) -> None:
    too_long = json.dumps(GOOD | {"labels": {"a": "x" * 270000}})
    json_type = {"Content-Type": "application/json"}
    announced = await api.client.post("/machines", content=too_long, headers=json_type)

    async def pieces() -> Any:
        for start in range(0, len(too_long), 1000):
            yield too_long[start : start + 1000].encode()

    chunked = await api.client.post("/machines", content=pieces(), headers=json_type)
    for answer in (announced, chunked):
        assert error(answer) == (
            413, "TOO_LARGE", "The body is too large: at most 262144 bytes are read"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("egress", "place"),
    [
        ([{"network": "10.0.0.0/8"}, {"network": "10.0.0.1/8"}], 'egress[1]["network"]'),
        ([{"network": "10.0.0.0/8", "ports": [80, 0]}], 'egress[0]["ports"][1]'),
        ([{"network": "10.0.0.0/8", "port": 80}], 'egress[0]["port"]'),
        ([{}], 'egress[0]["network"]'),
    ],
)
async def test_egress_says_which_rule_is_wrong(api: Api, egress: Any, place: str) -> None:
    answer = await api.client.post("/machines", json=GOOD | {"egress": egress})
    message = error(answer)[2]
    assert message.startswith('egress must be "all", "none", or a list of ')
    assert message.endswith(f"(look at {place})")
