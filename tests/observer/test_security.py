"""Who may see the page: the token, the cookie, and the checks of `Host`, `Origin` and the CSRF token."""

from __future__ import annotations

import pytest

from suitkaise.observer.security import HEADERS, Refused, Security


@pytest.fixture
def security() -> Security:
    return Security("127.0.0.1", 8000, "the-token")


def test_the_token_works_once(security: Security) -> None:
    assert security.exchange("wrong") is None
    assert security.exchange("the-tokeñ") is None
    session = security.exchange("the-token")
    assert session
    assert session != "the-token"
    assert security.exchange("the-token") is None
    security.check_session({security.cookie: session})


@pytest.mark.parametrize("cookies", [{}, {"suitkaise-8000": ""}, {"suitkaise-8000": "the-token"}, {"other": "x"}])
def test_a_wrong_cookie_is_refused(security: Security, cookies: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        security.check_session(cookies)
    assert refused.value.status == 401


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "localhost:9999"])
def test_names_of_this_machine_are_ours(security: Security, host: str) -> None:
    security.check_host({"host": host})


@pytest.mark.parametrize(
    "host", ["", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1:8000", "[::2]"]
)
def test_a_name_that_was_made_to_point_here_is_refused(security: Security, host: str) -> None:
    with pytest.raises(Refused) as refused:
        security.check_host({"host": host})
    assert refused.value.status == 421


def test_at_all_addresses_any_address_is_ours_and_no_name() -> None:
    security = Security("0.0.0.0", 8000, "t")
    security.check_host({"host": "10.1.2.3:8000"})
    with pytest.raises(Refused):
        security.check_host({"host": "evil.example:8000"})


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8000", "http://127.0.0.1:8001"])
def test_another_origin_is_refused(security: Security, origin: str) -> None:
    with pytest.raises(Refused) as refused:
        security.check_host({"host": "127.0.0.1:8000", "origin": origin})
    assert refused.value.status == 403


def test_our_own_origin_is_accepted_also_behind_tls(security: Security) -> None:
    for scheme in ("http", "https"):
        security.check_host({"host": "localhost:8000", "origin": f"{scheme}://localhost:8000"})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_data_is_for_our_own_page(security: Security, site: str) -> None:
    with pytest.raises(Refused):
        security.check_site({"sec-fetch-site": site})
    security.check_site({"sec-fetch-site": "same-origin"})
    security.check_site({})


def test_a_change_needs_the_origin_and_the_csrf_token(security: Security) -> None:
    right = {"origin": "http://127.0.0.1:8000", "x-csrf-token": security.csrf}
    security.check_change(right)
    for wrong in ({**right, "x-csrf-token": "no"}, {"origin": right["origin"]}, {"x-csrf-token": security.csrf}):
        with pytest.raises(Refused) as refused:
            security.check_change(wrong)
        assert refused.value.status == 403


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
