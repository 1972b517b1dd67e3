"""The first and the last thing that one types: init makes an agent that works, doctor says what does not."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from sim_stack import SimStack
from stack import BIN, Stack, free_port, until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")


def sandpiper(*argv, env=None, cwd=None):
    e = {k: v for k, v in os.environ.items() if not k.startswith(("SANDPIPER_", "E2B_"))}
    return subprocess.run([str(BIN / "sandpiper"), *argv], capture_output=True, text=True, env={**e, **(env or {})}, cwd=cwd, timeout=60)


# ---- init ----

STARTERS = ["python", "node", "shell"]


@as_root
def test_every_starter_works_as_it_is_made(tmp_path):
    s = Stack()
    try:
        s.start()
        assert [line.split()[0] for line in sandpiper("init", "--list").stdout.splitlines()] == STARTERS
        for starter in STARTERS:
            made = sandpiper("init", f"My_{starter}", "--starter", starter, cwd=tmp_path)
            assert made.returncode == 0, made.stderr
            s.cli("deploy", str(tmp_path / f"My_{starter}"))
            r = s.client.run(f"my-{starter}", "hello there")
            assert (r["status"], r["output"]) == ("succeeded", "HELLO THERE\n")
            assert s.client.call("GET", f"/v1/invocations/{r['id']}/logs").body == b"a prompt of 11 characters\n"
            r = s.client.run(f"my-{starter}", "\n")
            assert (r["status"], r["exit_code"]) == ("failed", 1)
    finally:
        s.stop()


def test_init_leaves_what_is_there(tmp_path):
    mine = tmp_path / "a" / "main.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    r = sandpiper("init", "a", cwd=tmp_path)
    assert r.returncode == 2 and "main.py is there already" in r.stderr
    assert mine.read_text() == "mine" and list(mine.parent.iterdir()) == [mine]


@pytest.mark.parametrize("argv, says", [
    ([], "name a directory"),
    (["x", "--starter", "cobol"], "no starter cobol"),
    (["x", "--name", "No Good"], "--name takes lower-case letters"),
    (["a b!"], "is no agent's"),
    (["none/at/all"], "cannot make none/at/all"),
])
def test_init_says_what_is_wrong(tmp_path, argv, says):
    r = sandpiper("init", *argv, cwd=tmp_path)
    assert r.returncode == 2 and says in r.stderr
    assert list(tmp_path.iterdir()) == []


def test_init_names_the_agent_as_asked(tmp_path):
    r = sandpiper("init", "dir", "--name", "other", "--json", cwd=tmp_path)
    assert json.loads(r.stdout) == {"name": "other", "directory": "dir", "starter": "python"}
    assert json.loads((tmp_path / "dir" / "agent.json").read_text())["name"] == "other"


# ---- doctor ----


@pytest.fixture(scope="module")
def stack():
    s = SimStack()
    try:
        yield s.start()
    finally:
        s.stop()


def doctor(stack, *argv, cwd="/", **env):
    """({check: its line}, exit status)"""
    e = {"SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", "SANDPIPER_API_KEY": stack.key,
         **{k: v for k, v in stack.env.items() if k in ("SANDPIPER_DATABASE_URL", "SANDPIPER_REDIS_URL") or k.startswith("E2B_")}, **env}
    r = sandpiper("doctor", "--json", *argv, env={k: v for k, v in e.items() if v is not None}, cwd=cwd)
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    return {line["check"]: line for line in lines}, r.returncode


ALL = {"gateway", "accepting", "key", "PostgreSQL", "Redis", "executors", "dispatchers", "sandboxes"}


def test_a_healthy_one(stack):
    found, status = doctor(stack)
    assert status == 0 and set(found) == ALL and {f["status"] for f in found.values()} == {"ok"}, found


def test_a_caller_has_no_settings_of_operators(stack):
    found, status = doctor(stack, SANDPIPER_DATABASE_URL=None, SANDPIPER_REDIS_URL=None, E2B_API_KEY=None)
    assert status == 0
    assert {c for c, f in found.items() if f["status"] == "skipped"} == {"PostgreSQL", "Redis", "sandboxes"}


def test_settings_of_a_file(stack, tmp_path):
    config = tmp_path / ".sandpiper" / "sandpiper.env"
    config.parent.mkdir()
    names = ("SANDPIPER_DATABASE_URL", "SANDPIPER_REDIS_URL", "E2B_API_KEY", "E2B_API_URL")
    config.write_text("".join(f"{n}='{stack.env[n]}'\n" for n in names))  # as deploy/quickstart quotes them
    found, status = doctor(stack, cwd=tmp_path, **dict.fromkeys(names))
    assert status == 0 and set(found) == ALL
    config.write_text("SANDPIPER_REDIS_ULR=x\n")
    r = sandpiper("doctor", cwd=tmp_path, env={"SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}"})
    assert r.returncode == 2 and "SANDPIPER_REDIS_URL" in r.stderr


@pytest.mark.parametrize("check, env, fix", [
    ("gateway", {"SANDPIPER_URL": f"http://127.0.0.1:{free_port()}"}, "quickstart"),
    ("key", {"SANDPIPER_API_KEY": "sp_" + "0" * 40}, "keys create"),
    ("key", {"SANDPIPER_API_KEY": None}, "SANDPIPER_API_KEY"),
    ("PostgreSQL", {"SANDPIPER_DATABASE_URL": "postgresql://x@/x?host=/nowhere"}, "SANDPIPER_DATABASE_URL"),
    ("Redis", {"SANDPIPER_REDIS_URL": "unix:///nowhere"}, "SANDPIPER_REDIS_URL"),
    ("sandboxes", {"E2B_API_URL": f"http://127.0.0.1:{free_port()}"}, "E2B_API_URL"),
], ids=["gateway", "key", "no-key", "postgres", "redis", "e2b"])
def test_what_does_not_answer(stack, check, env, fix):
    found, status = doctor(stack, **env)
    assert status == 1 and found[check]["status"] == "bad" and fix in found[check]["fix"], found


def test_something_else_than_a_gateway(stack):
    found, status = doctor(stack, SANDPIPER_URL=f"http://127.0.0.1:{stack.sandboxd_port}")
    assert status == 1 and "SANDPIPER_URL" in found["gateway"]["fix"]


def test_a_schema_of_another_release(stack):
    newest = stack.psql("delete from schema_migrations where version = (select max(version) from schema_migrations) returning version, name")
    version, name = newest.split("|")
    try:
        found, status = doctor(stack)
        assert status == 1 and "sandpiper migrate" in found["PostgreSQL"]["fix"]
    finally:
        stack.psql(f"insert into schema_migrations (version, name) values ({version}, '{name}')")


def test_nobody_at_work(stack):
    """The daemons have ended; then Redis, too."""
    for p in stack.executors + stack.dispatchers:
        p.stop()
    until("the lead runs out", lambda: stack.redis_cli("exists", "sp:lead") == "0", 10)
    found, status = doctor(stack)
    assert status == 1 and {c for c, f in found.items() if f["status"] == "bad"} == {"executors", "dispatchers"}
    stack.redis.kill()
    until("the gateway knows", lambda: doctor(stack)[0]["accepting"]["status"] == "bad", 10)
    found, _ = doctor(stack)
    assert "Redis" in found["accepting"]["fix"] and found["Redis"]["status"] == "bad"
    stack.start_redis()
    stack.executors[0].start()
    stack.dispatchers[0].start()
    until("all is well", lambda: doctor(stack)[1] == 0, 30)


def test_for_people(stack):
    r = sandpiper("doctor", env={"SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}"}, cwd=pathlib.Path("/"))
    assert r.returncode == 1 and "BAD  key" in r.stdout and "\033" not in r.stdout


# ---- profiles ----


@pytest.fixture
def home(tmp_path):
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": None}


def profiles(home, *argv, stdin=None, **env):
    e = {k: v for k, v in os.environ.items() if not k.startswith(("SANDPIPER_", "E2B_"))}
    e = {k: v for k, v in {**e, **home, **env}.items() if v is not None}
    return subprocess.run([str(BIN / "sandpiper"), *argv], input=stdin, capture_output=True, text=True, env=e, cwd="/", timeout=60)


def gateway_of(stack):
    return f"http://127.0.0.1:{stack.gateways[0].port}"


def test_a_profile_is_a_gateway_and_a_key(stack, home):
    r = profiles(home, "profiles", "set", "here", "--gateway", gateway_of(stack) + "/", stdin=stack.key + "\n")
    assert r.returncode == 0, r.stderr
    kept = pathlib.Path(home["HOME"]) / ".config/sandpiper/here.profile"
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.parent.stat().st_mode & 0o777 == 0o700
    assert profiles(home, "agents").returncode == 0  # the first one is used
    other = profiles(home, "profiles", "set", "away", "--gateway", f"http://127.0.0.1:{free_port()}", stdin="sp_x")
    assert other.returncode == 0
    listed = [json.loads(line) for line in profiles(home, "profiles", "ls", "--json").stdout.splitlines()]
    assert [(p["name"], p["current"]) for p in listed] == [("away", False), ("here", True)]
    assert "key" not in listed[0] and stack.key not in profiles(home, "profiles", "ls").stdout
    assert profiles(home, "profiles", "use", "away").returncode == 0
    assert profiles(home, "agents").returncode == 3
    assert profiles(home, "agents", "--profile", "here").returncode == 0
    assert profiles(home, "agents", SANDPIPER_PROFILE="here").returncode == 0
    assert profiles(home, "profiles", "rm", "here").returncode == 0
    assert profiles(home, "agents", "--profile", "here").returncode == 2


def test_the_environment_goes_before_the_current_profile(stack, home):
    profiles(home, "profiles", "set", "away", "--gateway", f"http://127.0.0.1:{free_port()}", stdin="sp_x")
    said = {"SANDPIPER_URL": gateway_of(stack), "SANDPIPER_API_KEY": stack.key}
    assert profiles(home, "agents", **said).returncode == 0
    assert profiles(home, "agents", "--profile", "away", **said).returncode == 3


def test_a_profiles_key_goes_to_no_other_gateway(stack, home):
    profiles(home, "profiles", "set", "away", "--gateway", "http://127.0.0.1:9", stdin=stack.key)
    r = profiles(home, "agents", "--url", gateway_of(stack))
    assert r.returncode == 3 and "unauthorized" in r.stderr


@pytest.mark.parametrize("argv, stdin, says", [
    (["set", "x"], "sp_x", "--gateway takes"),
    (["set", "x", "--gateway", "ftp://a"], "sp_x", "--gateway takes"),
    (["set", "No", "--gateway", "http://a"], "sp_x", "lower-case letters"),
    (["set", "../x", "--gateway", "http://a"], "sp_x", "lower-case letters"),
    (["set", "x", "--gateway", "http://a"], "", "the key is one line"),
    (["set", "x", "--gateway", "http://a"], "a\nb", "the key is one line"),
    (["set", "x", "--gateway", "http://a"], "k" * 1000, "limit"),
    (["use", "none"], None, "no profile none"),
    (["rm", "none"], None, "no profile none"),
    (["set"], None, "which profile"),
    (["sing", "x"], None, "profiles sing"),
])
def test_profiles_say_what_is_wrong(home, argv, stdin, says):
    r = profiles(home, "profiles", *argv, stdin=stdin)
    assert r.returncode == 2 and says in r.stderr, r.stderr
    assert not list(pathlib.Path(home["HOME"]).rglob("*.profile"))


# ---- an agent's newest ----


def test_get_and_logs_take_an_agent(stack):
    said = {"SANDPIPER_URL": gateway_of(stack), "SANDPIPER_API_KEY": stack.key}
    stack.client.deploy("talker", {"agent.json": '{"runtime": "command", "entry": "cat"}'})
    r = sandpiper("logs", "talker", env=said)
    assert r.returncode == 2 and "has run nothing yet" in r.stderr
    for n in ("one", "two"):
        last = stack.client.run("talker", json.dumps({"sim": {"stderr": f"log {n}\n", "output": n}}))
    assert sandpiper("logs", "talker", env=said).stdout == "log two\n"
    assert sandpiper("logs", "talker", "-f", env=said).stdout == "log two\n"
    assert json.loads(sandpiper("get", "talker", "--json", env=said).stdout)["id"] == last["id"]
    r = sandpiper("logs", "nobody", env=said)
    assert r.returncode in (2, 3) and "nobody" in r.stderr
    assert sandpiper("get", "no/such", env=said).returncode == 2


# ---- completions ----


# What a shell is to do with what was typed, {0}: print what it would offer, a line each.
SHELLS = {
    "bash": """source <(sandpiper completions bash); COMP_WORDS=(sandpiper {0}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _sandpiper
               printf "%s\\n" "${{COMPREPLY[@]}}" """,
    "zsh": """compdef() {{ :; }}; compadd() {{ shift; for w in $@; do [[ $w == $words[CURRENT]* ]] && print -r -- $w; done; true }}
              source <(sandpiper completions zsh); words=(sandpiper {0}); CURRENT=$#words; _sandpiper""",
    "fish": "sandpiper completions fish | source; complete -C 'sandpiper {0}'",
}
BARE = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("typed, found", [
    ("doc", ["doctor"]),
    ("pro", ["profiles"]),
    ("secrets r", ["rm", "rotate-key"]),
    ("keys re", ["revoke"]),
    ("init --st", ["--starter"]),
    ("completions z", ["zsh"]),
    ("logs simu", ["simulated"]),
])
def test_shells_complete(stack, tmp_path, shell, typed, found):
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "SANDPIPER_URL": gateway_of(stack), "SANDPIPER_API_KEY": stack.key}
    r = subprocess.run([shell, *BARE[shell], "-c", SHELLS[shell].format(typed)], capture_output=True, text=True, env=env, timeout=60, cwd=tmp_path)
    assert (r.stdout.split(), r.stderr) == (found, "")


def test_there_are_completions_for_three_shells():
    r = sandpiper("completions", "csh")
    assert r.returncode == 2 and "not for csh" in r.stderr


# ---- manual pages ----


def commands():
    parts = subprocess.run([BIN / "sandpiper", "--help"], capture_output=True, text=True, check=True).stdout.split("\n\n")
    return re.findall(r"^  ([a-z]+) ", parts[1], re.M) if len(parts) > 1 else []


def words_of(page):
    """As a reader sees it, hyphenation and line ends left out."""
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True).stdout
    assert [line for line in lint.splitlines() if "cannot parse date" not in line] == [], lint
    text = subprocess.run(["mandoc", "-T", "ascii", "-O", "width=400", page], capture_output=True, text=True, check=True).stdout
    return re.sub(".\x08", "", text)


def test_every_program_and_command_has_a_manual_page(tmp_path):
    repository = pathlib.Path(__file__).parents[2]
    subprocess.run([repository / "deploy" / "man", BIN, tmp_path], check=True, timeout=120, stdin=subprocess.DEVNULL)
    assert len(commands()) > 20
    first = words_of(tmp_path / "man1" / "sandpiper.1")
    for name in commands():
        page, said = words_of(tmp_path / "man1" / f"sandpiper-{name}.1"), subprocess.run([BIN / "sandpiper", name, "--help"], capture_output=True, text=True).stdout
        assert f"sandpiper-{name}(1)" in first and f"sandpiper-{name} - " in page and "EXIT STATUS" in page
        if name == "batch":  # its commands have their own
            said = "".join(subprocess.run([BIN / "sandpiper", name, part, "--help"], capture_output=True, text=True).stdout for part in ("submit", "status", "results", "cancel", "ls"))
        options = re.findall(r"^  (--[a-z-]+)", said, re.M)
        assert "--help" in options and [o for o in options if o not in page] == []
    for daemon in ("gateway", "dispatcher", "executor", "sandboxd"):
        page, said = words_of(tmp_path / "man8" / f"sandpiper-{daemon}.8"), subprocess.run([BIN / f"sandpiper-{daemon}", "--help"], capture_output=True, text=True).stdout
        keys = re.findall(r"^  ([A-Z0-9_]+) \(", said, re.M)
        assert len(keys) > 5 and [k for k in keys if k not in page] == []
    assert {p.name for p in (tmp_path / "man1").iterdir()} == {"sandpiper.1"} | {f"sandpiper-{n}.1" for n in commands()}


# ---- open ----


def test_open_shows_or_prints(stack, tmp_path):
    said = {"SANDPIPER_URL": gateway_of(stack), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    assert sandpiper("open", env=said).stdout == f"{gateway_of(stack)}/docs\n"
    browser = tmp_path / "xdg-open"
    browser.write_text(f"#!/bin/sh\necho \"$1\" >{tmp_path}/shown\n")
    browser.chmod(0o755)
    r = sandpiper("open", env={**said, "DISPLAY": ":9", "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (r.returncode, r.stdout, (tmp_path / "shown").read_text()) == (0, "", f"{gateway_of(stack)}/docs\n")
    browser.write_text("#!/bin/sh\nexit 3\n")
    r = sandpiper("open", env={**said, "DISPLAY": ":9", "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert r.stdout == f"{gateway_of(stack)}/docs\n"
    assert sandpiper("open", env={**said, "SANDPIPER_URL": f"http://127.0.0.1:{free_port()}"}).returncode == 3
