"""Limits of an agent's account: recognised in what the agent prints, with the time at which they end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.proposers import reset_time, usage_limits

HERE = timezone(timedelta(hours=1))
NOW = datetime(2026, 12, 1, 9, 12, 30, tzinfo=HERE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("resets 1pm", "2026-12-01T13:00:00+01:00"),
        ("resets 3:45pm (UTC)", "2026-12-01T15:45:00+00:00"),
        ("will reset at 9am (America/Chicago).", "2026-12-01T09:00:00-06:00"),
        ("resets 9am", "2026-12-01T09:00:00+01:00"),  # twelve minutes ago: the service is late
        ("resets 8am", "2026-12-02T08:00:00+01:00"),
        ("at 13:00", "2026-12-01T13:00:00+01:00"),
        ("try again at 3:28 PM.", "2026-12-01T15:28:00+01:00"),
        ("try again at Jan 1st, 2027 12:57 AM.", "2027-01-01T00:57:00+01:00"),
        ("resets Feb 3 at 10am", "2027-02-03T10:00:00+01:00"),
        ("resets Dec 5, 1pm", "2026-12-05T13:00:00+01:00"),
        ("tomorrow at 9am", "2026-12-02T09:00:00+01:00"),
        ("Thursday 9am", "2026-12-03T09:00:00+01:00"),
        ("in 2h 30m", "2026-12-01T11:42:30+01:00"),
        ("in 2 days 17 hours 14 minutes.", "2026-12-04T02:26:30+01:00"),
        ("in 5 days 22 hours 11\nminutes", "2026-12-07T07:23:30+01:00"),
        ("after 21h53m56s.", "2026-12-02T07:06:26+01:00"),
        ("in 1.5s", "2026-12-01T09:12:31.500000+01:00"),
        ("retry-after: 30", "2026-12-01T09:13:00+01:00"),
        ("2026-12-01T13:00:00Z", "2026-12-01T13:00:00+00:00"),
        ("2026-12-01 13:00", "2026-12-01T13:00:00+01:00"),
        ("|1796130000", "2026-12-01T14:00:00+01:00"),
        ("1796130000000", "2026-12-01T14:00:00+01:00"),
    ],
)
def test_a_time_is_read_from_words(words: str, expected: str) -> None:
    assert reset_time.parse(words, NOW) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "words",
    ["", "soon", "12 minutes ago", "exceeded 5290 tokens", "at 25:71", "Feb 31", "version 1.2.3", "in 900000 weeks",
     "13pm", "0am", "|0000000001", "(nowhere/at_all)"],
)  # fmt: skip
def test_words_without_a_time_are_none(words: str) -> None:
    assert reset_time.parse(words, NOW) is None


FORMATS = (
    ("%Y-%m-%dT%H:%M:%S%z", timedelta(seconds=1)),
    ("%b %d, %Y %I:%M %p", timedelta(minutes=1)),
    ("%B %d at %H:%M", timedelta(minutes=1)),
)


@given(
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    offset=st.integers(-12 * 60, 14 * 60),
    ahead=st.timedeltas(timedelta(minutes=1), timedelta(days=300)),
    form=st.sampled_from(FORMATS),
)
def test_a_date_that_is_written_is_read_again(
    now: datetime, offset: int, ahead: timedelta, form: tuple[str, timedelta]
) -> None:
    now = now.replace(tzinfo=timezone(timedelta(minutes=offset)))
    words, exact = form
    found = reset_time.parse(f"Your limit resets {(now + ahead).strftime(words)}.", now)
    assert found is not None
    assert timedelta(0) <= now + ahead - found < exact


@given(
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), ahead=st.timedeltas(timedelta(0), timedelta(hours=23))
)
def test_a_clock_time_is_the_next_one(now: datetime, ahead: timedelta) -> None:
    now = now.replace(tzinfo=UTC)
    at = (now + ahead).replace(second=0, microsecond=0)
    for words in (at.strftime("%I:%M%p").lower(), at.strftime("%H:%M"), at.strftime("%I:%M %p (UTC)")):
        assert reset_time.parse(f"resets {words}", now) == at


@given(st.integers(0, 300), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_a_span_is_the_sum_of_its_parts(days: int, hours: int, minutes: int, seconds: int) -> None:
    span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    for words in (
        f"in {days}d {hours}h {minutes}m {seconds}s", f"after {days}d{hours}h{minutes}m{seconds}s",
        f"in {days} days, {hours} hours, {minutes} minutes and {seconds} seconds",
    ):  # fmt: skip
        assert reset_time.parse(words, NOW) == NOW + span


@given(st.text(alphabet="0123456789:.-|TZ+ apmhdsinJanFeb()/UTC,\n") | st.text())
def test_any_text_gives_a_time_with_a_zone_or_none(words: str) -> None:
    found = reset_time.parse(words, NOW)
    assert found is None or (found.tzinfo is not None and abs(found - NOW) <= timedelta(days=366))


ONE = datetime.fromisoformat("2026-12-01T13:00:00+01:00")
EPOCH = int(ONE.timestamp())


@pytest.mark.parametrize(
    ("agent", "output", "ends"),
    [
        ("claude", "Hello\nClaude AI usage limit reached|{epoch}", ONE),
        ("claude", "5-hour limit reached ∙ resets 1pm\n     /upgrade to increase your usage limit.", ONE),
        ("claude", "You've hit your limit · resets 1pm (Europe/Berlin)", ONE),
        ("claude", "You've hit your session limit · resets 1pm", ONE),
        ("claude", "Claude usage limit reached. Your limit will reset at 1pm (Europe/Berlin).", ONE),
        ("claude", '{"type":"result","subtype":"success","is_error":true,"api_error_status":429,'
                   '"result":"You\'ve hit your limit · resets 1pm (Europe/Berlin)","total_cost_usd":0}', ONE),
        ("claude", '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":%d,'
                   '"rateLimitType":"five_hour"}}\n{"type":"result","is_error":true,"result":"limit"}', ONE),
        ("codex", "ERROR: You've hit your usage limit. Upgrade to Pro (https://openai.com/chatgpt/pricing) or try "
                  "again in 3 hours 47 minutes 30 seconds.", ONE),
        ("codex", "You've hit your usage limit. Visit https://chatgpt.com/codex/settings/usage to purchase more "
                  "credits or try again at 1:00 PM.", ONE),
        ("codex", '{"type":"turn.failed","error":{"message":"You\'ve hit your usage limit. Try again at 1:00 PM."}}',
         ONE),
        ("codex", 'Codex error: {"type":"error","error":{"type":"usage_limit_reached","message":"The usage limit has '
                  'been reached","plan_type":"plus","resets_at":%d,"resets_in_seconds":9},"status_code":429}', ONE),
        ("gemini", "TerminalQuotaError: You have exhausted your capacity on this model. Your quota will reset after "
                   "3h47m30s.\n    at classifyGoogleError (file:///C:/googleQuotaErrors.js:252:28)", ONE),
        ("gemini", json.dumps({"error": {"code": 429, "message": "You exceeded your quota",
                   "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "13650s"}]}}, indent=2), ONE),
        ("gemini", "[API Error: Resource has been exhausted (e.g. check quota).]", None),
        ("codex", "You've hit your usage limit. Upgrade to Pro, or wait for limits to reset (every 5h).", None),
        ("work.sh", "Claude AI usage limit reached|{epoch}", ONE),
        ("work.sh", "You've hit your usage limit or try again at 1:00 PM.", ONE),
    ],
)  # fmt: skip
def test_the_limits_of_known_agents_are_recognised(agent: str, output: str, ends: datetime | None) -> None:
    limit = usage_limits.read(agent, output.replace("{epoch}", str(EPOCH)).replace("%d", str(EPOCH)), NOW)
    assert limit is not None
    assert limit.said
    assert limit.ends == ends


@pytest.mark.parametrize(
    "output",
    [
        "", "What now?", "Please run /login", "API Error: 529 overloaded", "I limited the learning rate.",
        '{"type":"rate_limit_event","rate_limit_info":{"status":"allowed","resetsAt":1,"rateLimitType":"five_hour"}}',
        '{"type":"result","is_error":false,"result":"I reached a plateau"}', "{" * 4000, '{"code": 429', "[1, {]",
    ],
)  # fmt: skip
def test_other_words_tell_of_no_limit(output: str) -> None:
    assert usage_limits.read("claude", output, NOW) is None
    assert usage_limits.read("any.sh", output, NOW) is None


@given(st.text(max_size=400), st.sampled_from(("claude", "codex", "gemini", "x")))
def test_any_output_can_be_read(output: str, agent: str) -> None:
    for text in (output, json.dumps({"error": {"code": 429, "message": output}}), f"limit reached {output}"):
        usage_limits.read(agent, text, NOW)
