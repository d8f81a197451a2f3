"""URLs as found in the wild become what a browser would ask for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.fetch.target import Target, _parse_slowly, join, parse
from pipeline.records import Failure

LONG = 8192


def target(url: str) -> Target:
    found = parse(url, LONG)
    assert isinstance(found, Target), found
    return found


@pytest.mark.parametrize(
    ("wild", "url"),
    [
        ("http://a.example/x.jpg", "http://a.example/x.jpg"),
        ("  http://a.example/x.jpg\n", "http://a.example/x.jpg"),
        ("http://a.example", "http://a.example/"),
        ("HTTP://A.Example/X.jpg", "http://a.example/X.jpg"),
        ("https://a.example:443/x", "https://a.example/x"),
        ("http://a.example:80/x", "http://a.example/x"),
        ("http://a.example:0080/x", "http://a.example/x"),
        ("http://a.example:8080/x", "http://a.example:8080/x"),
        ("a.example/x.jpg", "http://a.example/x.jpg"),
        ("www.a.example:8080/x.jpg", "http://www.a.example:8080/x.jpg"),
        ("localhost/x.jpg", "http://localhost/x.jpg"),
        ("localhost:8000/x.jpg", "http://localhost:8000/x.jpg"),
        ("//a.example/x.jpg", "http://a.example/x.jpg"),
        ("http:/a.example/x.jpg", "http://a.example/x.jpg"),
        ("http:\\\\a.example\\x.jpg", "http://a.example/x.jpg"),
        ("http://a.example/two words.jpg", "http://a.example/two%20words.jpg"),
        ("http://a.example/größe.jpg?f=ä", "http://a.example/gr%C3%B6%C3%9Fe.jpg?f=%C3%A4"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://\uff22Ücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://例え.テスト/x", "http://xn--r8jz45g.xn--zckzah/x"),
        ("http://a.example/100%.jpg", "http://a.example/100%.jpg"),
        ("http://a.example/%zz/%41", "http://a.example/%zz/%41"),
        ("http://a.example/x.jpg#zoom", "http://a.example/x.jpg"),
        ("http://a.example/x?a=1&amp;b=2", "http://a.example/x?a=1&b=2"),
        ("http://a.example/x?a=1&#38;b=2", "http://a.example/x?a=1&b=2"),
        ("http://a.example/x?a=1&copy=2", "http://a.example/x?a=1&copy=2"),
        ("http://a.example/x?a=1&nonsense;b", "http://a.example/x?a=1&nonsense;b"),
        ("http://a.example/a/../b/./c.jpg", "http://a.example/b/c.jpg"),
        ("http://a.example/a/%2e%2E/b", "http://a.example/b"),
        ("http://a.example/a\tb\nc", "http://a.example/abc"),
        ("http://a.example//double//slash", "http://a.example//double//slash"),
        ("http://a_b.example/x", "http://a_b.example/x"),
        ("http://_a.-b.c-.example/x", "http://_a.-b.c-.example/x"),
        ("http://ab--cd.example/x", "http://ab--cd.example/x"),
        ("http://a.example./x", "http://a.example./x"),
        ("http://I❤.example/", "http://xn--i-7iq.example/"),
        ("http://fa\u00df.example/", "http://xn--fa-hia.example/"),
        ("http://b\u00fc_cher.example/", "http://xn--b_cher-3ya.example/"),
        ("http://shop\u3002example/", "http://shop.example/"),
        ("http://XN--BCHER-KVA.example/", "http://xn--bcher-kva.example/"),
        ("http://%62%C3%BCcher%2eexample/", "http://xn--bcher-kva.example/"),
        ("https://a.example:80/x", "https://a.example:80/x"),
        ("http://[2606:4700:0:0:0:0:0:1111]:80/x", "http://[2606:4700::1111]/x"),
        ("ht\ntp:\t//a.exa\rmple/x\n.jpg", "http://a.example/x.jpg"),
        ('http://a.example/[1]|2^3`4"5<6>{7}', "http://a.example/[1]|2%5E3%604%225%3C6%3E%7B7%7D"),
        ('http://a.example/x?q=[1]|2^3`4"5<6>{7}', "http://a.example/x?q=[1]|2^3`4%225%3C6%3E{7}"),
        (" <http://a.example/x> ", "http://a.example/x"),
        ('"http://a.example/x"', "http://a.example/x"),
        ("'a.example/x'", "http://a.example/x"),
        ("\u201chttp://a.example/x\u201d", "http://a.example/x"),
        ("user:pass@a.example/x", "http://a.example/x"),
        ("http:a.example/x", "http://a.example/x"),
        ("http:///a.example/x", "http://a.example/x"),
        ("http://a.example/..%2f..%2fetc", "http://a.example/..%2f..%2fetc"),
        ("http://a.example/it's?it's", "http://a.example/it's?it%27s"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.01/", "http://127.0.0.1/"),
        ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
    ],
)
def test_a_wild_url_is_read_as_a_browser_reads_it(wild: str, url: str) -> None:
    assert target(wild).url == url


@pytest.mark.parametrize(
    ("url", "reason", "detail"),
    [
        ("", "bad_url", "empty"),
        (" \t\n", "bad_url", "empty"),
        ("nonsense", "bad_url", "no host"),
        ("http://", "bad_url", "malformed"),
        ("http://a b.example/", "bad_url", "malformed"),
        ("http://[::1/", "bad_url", "malformed"),
        ("http://[fe80::1%25eth0]/", "bad_url", "malformed"),
        ("http://a.example:99999/", "bad_url", "malformed"),
        ("http://a.example:0/", "bad_url", "port 0"),
        ("http://1.2.3.4.5/", "bad_url", "malformed"),
        ("http://256.1.1.1/", "bad_url", "malformed"),
        ("http://a..example/", "bad_url", "host name"),
        (f"http://{'a' * 64}.example/", "bad_url", "host name"),
        ("http://a.example/\ud800", "bad_url", "not unicode"),
        ("http://a.example/" + "x" * 10_000, "bad_url", "too long"),
        ("ftp://a.example/x", "blocked", "scheme ftp"),
        ("FILE:///etc/passwd", "blocked", "scheme file"),
        ("javascript:alert(1)", "blocked", "scheme javascript"),
        ("mailto:a@b.example", "blocked", "scheme mailto"),
        ("gopher://a.example/", "blocked", "scheme gopher"),
        ("C:\\pictures\\x.jpg", "blocked", "scheme c"),
        ("webhdfs://a.example/x", "blocked", "scheme webhdfs"),
        ("AKIAKEY:/secret@a.example/x", "blocked", "scheme unknown"),
        ("http://xn--b\u00fccher.example/", "bad_url", "malformed"),
        ("http://a\u200db.example/", "bad_url", "malformed"),
        ("/srv/x.jpg", "blocked", "scheme file"),
    ],
)
def test_what_is_no_url_is_said_with_its_reason(url: str, reason: str, detail: str) -> None:
    assert parse(url, LONG) == Failure.of(reason, detail)


def test_credentials_leave_the_url_and_are_kept_apart() -> None:
    found = target("https://us%20er:pass@a.example/x")
    assert (found.url, found.user) == ("https://a.example/x", b"us er:pass")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://a.example/", "a.example"),
        ("https://A.example/", "a.example"),
        ("http://a.example./", "a.example"),
        ("http://a.example:8080/", "a.example:8080"),
        ("https://[2606:4700::1111]/", "2606:4700::1111"),
    ],
)
def test_both_schemes_of_a_host_are_under_the_same_limits_and_its_other_ports_are_not(url: str, key: str) -> None:
    assert target(url).key == key


def test_an_address_is_known_as_one() -> None:
    assert target("http://0x08080808/").address == ip_address("8.8.8.8")
    assert target("http://a.example/").address is None


WORD = st.text("abcxyz019-._~%!$&'()*+,;=:@/ü \\?#[]{}<>\"^`|\t", max_size=12)
URLS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP://", "//", ""]),
    st.lists(
        st.sampled_from(["a", "shop", "xn--bcher-kva", "x--y", "-a", "a-", "1", "10", "0x7", "é", "com", "co1"]),
        min_size=1,
        max_size=5,
    ).map(".".join),
    st.sampled_from(["", ":80", ":443", ":8080", ":0", ":08", ":65535", ":65536"]),
    st.sampled_from(["", "/"]),
    WORD,
)


@given(URLS)
@example("http://a.com/&amp;b")
@example("http://a.com/a/.b")
@example("http://a.com/..")
@example("http://1.2.3.04/")
@example("http://1.2.3.256/")
@example("http://xn--a.com/")
def test_the_quick_way_and_the_slow_way_agree(url: str) -> None:
    assert parse(url, LONG) == _parse_slowly(url)


@given(st.text(max_size=60) | URLS)
def test_any_text_is_a_target_in_its_final_form_or_a_failure(text: str) -> None:
    found = parse(text, LONG)
    if isinstance(found, Target):
        assert found.url.isascii()
        assert found.url.startswith((f"{found.scheme}://",))
        assert "#" not in found.url
        assert 0 < found.port < 65536
        assert parse(found.url, 10**6) == found._replace(user=b"")
    else:
        assert found.reason in ("bad_url", "blocked")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/y.jpg", "http://a.example/y.jpg"),
        ("y.jpg", "http://a.example/dir/y.jpg"),
        ("?q", "http://a.example/dir/x?q"),
        ("//b.example/y", "http://b.example/y"),
        ("HTTPS://b.example", "https://b.example/"),
        ("ü.jpg", "http://a.example/dir/%C3%BC.jpg"),
        (" /y.jpg ", "http://a.example/y.jpg"),
        ("\\\\b.example\\y", "http://b.example/y"),
    ],
)
def test_a_redirect_is_read_against_the_url_before_it(location: str, url: str) -> None:
    found = join(target("http://a.example/dir/x"), location, LONG)
    assert isinstance(found, Target)
    assert found.url == url


@given(st.text(max_size=60))
def test_no_location_header_is_an_exception(location: str) -> None:
    assert isinstance(join(target("http://a.example/"), location, LONG), Target | Failure)
