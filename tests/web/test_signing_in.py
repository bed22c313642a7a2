"""Signing in to the pages with a key, for this site only, and signing out."""

from __future__ import annotations

import re
import ssl

import httpx
import pytest
import trustme
from starlette.requests import Request
from starlette.responses import Response

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Account
from crucible_lineage.web.app import LIFETIME_S, SignIns


def test_signing_in_leads_to_the_requested_page(site):
    with httpx.Client(base_url=site.url, headers={"Origin": site.url}) as browser:
        page = browser.get("/projects/open-lab?measurement=XRD", follow_redirects=True)
        target = re.search(r'name="next" value="([^"]+)"', page.text)
        signed_in = browser.post("/sign-in", data={"key": site.key, "next": target[1]})

    assert signed_in.headers["location"] == "/projects/open-lab?measurement=XRD"


def test_a_link_on_another_site_is_followed_a_second_time_from_this_site(site):
    """A strict cookie is not sent with the first request."""
    answer = httpx.get(f"{site.url}/projects/open-lab?q=a%20b", headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.headers["refresh"] == "0; url=/projects/open-lab?q=a%20b"
    again = httpx.get(f"{site.url}/projects/open-lab?q=a%20b", headers={"Sec-Fetch-Site": "same-origin"})
    assert again.headers["location"].startswith("/sign-in?next=")


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"])
def test_signing_in_does_not_lead_to_another_site(site, elsewhere):
    signed_in = httpx.post(
        f"{site.url}/sign-in", data={"key": site.key, "next": elsewhere}, headers={"Origin": site.url}
    )

    assert signed_in.headers["location"] == "/"


def test_the_cookie_is_a_token_for_this_site_only(site):
    signed_in = httpx.post(f"{site.url}/sign-in", data={"key": site.key}, headers={"Origin": site.url})

    (cookie,) = [text for text in signed_in.headers.get_list("set-cookie") if "Max-Age=0" not in text]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert site.key not in str(signed_in.headers)


@pytest.mark.parametrize("key", ["wrong", "ü"])
def test_a_wrong_key_is_refused_and_not_repeated(site, key):
    form = {"key": key, "next": "/ask/list?a=b"}
    refused = httpx.post(f"{site.url}/sign-in", data=form, headers={"Origin": site.url})

    assert refused.status_code == 403
    assert "not known" in refused.text
    assert 'name="next" value="/ask/list?a=b"' in refused.text, "where the next try leads"
    assert not key or f'"{key}"' not in refused.text


@pytest.mark.parametrize("origin", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_forms_of_other_sites_neither_sign_in_nor_out(site, owner, origin):
    refused = httpx.post(f"{site.url}/sign-in", data={"key": site.key, "next": "/ask/list"}, headers=origin)
    assert (refused.status_code, 'name="next" value="/ask/list"' in refused.text) == (403, True)
    assert "The form did not come from this server." in refused.text
    assert owner.post("/sign-out", headers=origin).status_code == 403
    assert owner.get("/").status_code == 200


def test_signing_out_invalidates_the_token(site):
    with site.browser() as browser:
        token = dict(browser.cookies)
        browser.post("/sign-out", headers={"Origin": site.url})

        assert httpx.get(site.url, cookies=token).status_code == 303


def test_revoking_a_key_signs_out(site):
    account = site.request("POST", "/service_accounts", username="short-lived")
    with site.browser(account["api_key"]) as browser:
        site.request("POST", f"/service_accounts/{account['unique_id']}/rotate_key")

        assert browser.get("/").headers["location"] == "/sign-in"


def test_a_sign_in_expires_although_the_browser_still_has_the_cookie(tmp_path):
    now = 1000.0
    sign_ins = SignIns(tmp_path, clock=lambda: now)
    response = Response()
    reader = CrucibleClient("http://here/api/v1", "key")
    sign_ins.begin(_request(), response, reader, Account(user_unique_id="ada"), "key")
    token = response.headers.getlist("set-cookie")[-1].partition(";")[0]

    now += LIFETIME_S - 1
    assert sign_ins.of(_request(token)).name == "ada"
    now += 1
    assert sign_ins.of(_request(token)) is None


def _request(cookie=""):
    headers = [(b"host", b"here"), (b"cookie", cookie.encode())]
    return Request({"type": "http", "scheme": "http", "path": "/", "query_string": b"", "headers": headers})


def test_over_tls_the_cookie_is_secure(serving, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    tls = ["--certfile", tmp_path / "server.pem", "--keyfile", tmp_path / "server.pem"]
    with serving(tmp_path / "data", *tls) as (printed, key):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with httpx.Client(base_url=printed["pages"], verify=context) as browser:
            origin = {"Origin": printed["pages"].rstrip("/")}
            signed_in = browser.post("/sign-in", data={"key": key}, headers=origin, follow_redirects=True)

            assert "<h1>Projects</h1>" in signed_in.text
            assert "Secure" in signed_in.history[0].headers.get_list("set-cookie")[-1]
