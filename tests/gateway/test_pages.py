from asgi_bridge.gateway.nginx.pages import page


def test_pages_have_nginx_titles() -> None:
    assert b"<title>401 Authorization Required</title>" in (page(401) or b"")
    assert b"<title>409 Conflict</title>" in (page(409) or b"")


def test_there_is_no_page_for_some() -> None:
    assert [page(status) for status in (200, 300, 304, 407, 418, 430, 506, 600)] == [None] * 8


def test_page_of_a_header_that_is_too_large() -> None:
    content = page(494) or b""
    assert b"<title>400 Request Header Or Cookie Too Large</title>" in content
    assert b"<center>Request Header Or Cookie Too Large</center>" in content


def test_498_has_the_page_of_404() -> None:
    assert page(498) == page(404)
