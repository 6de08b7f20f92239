"""What the dashboard's files promise without a browser: sizes, types, and nothing that its content security policy would refuse."""

import re

from gateway.dashboard import CONTENT_SECURITY_POLICY, assets

STATIC_LINK = re.compile(rb'(?:href|src)="(/[^"#]*)|(?:from |import\(?)"\./([^"]+)"|href", `(/static/[^#`]+)')


def test_every_file_is_served_under_its_path_with_its_type() -> None:
    served = assets()
    assert served["/"].content_type == "text/html; charset=utf-8"
    assert served["/static/js/app.js"].content_type == "text/javascript; charset=utf-8"
    assert served["/static/css/tokens.css"].content_type == "text/css; charset=utf-8"
    assert served["/static/mark.svg"].content_type == "image/svg+xml"
    assert not [path for path in served if path.endswith(".py")]


def test_etags_follow_the_content() -> None:
    served = assets()
    assert len({asset.etag for asset in served.values()}) == len({asset.body for asset in served.values()})
    assert all(re.fullmatch(r'"[0-9a-f]{32}"', asset.etag) for asset in served.values())


def test_every_file_that_is_referred_to_exists_and_every_file_is_referred_to() -> None:
    served = assets()
    meant = {"/"}
    for asset in served.values():
        for absolute, module, sprite in STATIC_LINK.findall(asset.body):
            meant.add((absolute or sprite or b"/static/js/" + module).decode())
    assert meant == set(served)


def test_nothing_inline_nothing_foreign_and_no_markup_from_data() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    page = assets()["/"].body
    assert not re.search(rb"<style|\sstyle=|\son[a-z]+=", page)
    assert re.findall(rb"<script[^>]*>([^<]*)</script>", page) == [b""]
    for path, asset in assets().items():
        if path.endswith(".js"):
            assert not re.search(
                rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", asset.body
            ), path
            assert not re.search(rb"from \"[^.]", asset.body), path
