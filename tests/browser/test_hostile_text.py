"""Text from models, logs, files and errors is text: a corpus of payloads, in a real browser.

The watcher of each test fails it on a dialog, an exception, a breach of the content policy, and a request to another host; here
the page must also stay free of what a payload would leave behind.
"""

import json
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect

from tests.fixtures.chat_page import ChatPage
from tests.fixtures.chromium import Watcher
from tests.fixtures.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PAYLOADS = (
    "<script>window.pwned=1;alert(1)</script>",
    "</script><script>window.pwned=1;alert(1)</script>",
    "</pre></textarea></template></title><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<img src=http://evil.example/x.png>",
    "<svg onload=window.pwned=1><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<iframe src=//evil.example></iframe><object data=//evil.example></object><embed src=//evil.example>",
    "<details open ontoggle=window.pwned=1>x</details>",
    "<style>@import url(//evil.example/x.css);*{background:url(//evil.example/y)}</style>",
    "<link rel=stylesheet href=//evil.example/x.css><base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<form action=//evil.example><button autofocus onfocus=window.pwned=1>x</button></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.pwned=1&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>",
    "<a href=javascript:window.pwned=1>click</a>",
    "<input autofocus onfocus=window.pwned=1><video><source onerror=window.pwned=1></video>",
    '" onmouseover=window.pwned=1 x="',
    "' autofocus onfocus=window.pwned=1 x='",
    "{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1} {% raw %}",
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &#x3C;img src=x onerror=window.pwned=1&#x3E;",
    "\u202ereversed\u202c \x1b[31mred\x1b[0m \x00 \x07 \u2028 \u2029",
)
MARKDOWN = (
    "[click](javascript:window.pwned=1)",
    "[click](JaVaScRiPt:window.pwned=1)",
    "[click](java&#x0A;script:window.pwned=1)",
    "[click](&#106;avascript:window.pwned=1)",
    "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[click](vbscript:msgbox(1))",
    "[click]( <javascript:window.pwned=1> 'title\" onmouseover=\"window.pwned=1')",
    "[ref]\n\n[ref]: javascript:window.pwned=1",
    "![picture](http://evil.example/pixel.png)",
    '![a" onerror="window.pwned=1](x)',
    '![x](x"onerror="window.pwned=1)',
    "<javascript:window.pwned=1>",
    '<http://evil.example/"onmouseover="window.pwned=1>',
    '```"><img src=x onerror=window.pwned=1>\ncode\n```',
    "```html\n<script>window.pwned=1</script>\n```",
    "| a |\n| --- |\n| <img src=x onerror=window.pwned=1> |",
    "`<img src=x onerror=window.pwned=1>`",
    "# <img src=x onerror=window.pwned=1>",
)
HARMLESS_SCHEMES = ("http:", "https:", "mailto:")
# Whatever a payload could have brought into the page: only what our own templates and scripts make may be there.
INTRUDERS = (
    "iframe, object, embed, base, meta[http-equiv], link[href*=evil], img[src*=evil], img[src='x'], video, math, "
    "[onerror], [onload], [onfocus], [ontoggle], [onmouseover]"
)


async def assert_harmless(page: Page) -> None:
    """Nothing ran, nothing was built, and no link leads into a script."""
    assert await page.evaluate("() => window.pwned === undefined")
    assert await page.locator(INTRUDERS).count() == 0
    schemes = await page.evaluate("() => [...document.links].map((link) => link.protocol)")
    assert set(schemes) <= set(HARMLESS_SCHEMES), schemes


async def test_model_output(stage: Site, watcher: Watcher) -> None:
    text = "\n\n".join((*PAYLOADS, *MARKDOWN))
    await stage.tell("ready", stream_text=text)
    chat = await ChatPage.open(watcher, stage.url, "ready")
    answer = await chat.ask("a question")
    await expect(answer.locator(".markdown")).to_contain_text("<script>window.pwned=1;alert(1)</script>")
    await expect(answer.locator(".markdown").get_by_role("heading")).to_have_text("<img src=x onerror=window.pwned=1>")
    await expect(answer.locator(".markdown img")).to_have_count(0)
    await assert_harmless(chat.page)
    for link in await answer.locator(".markdown a").all():
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    await chat.page.reload()
    await expect(chat.answers.locator(".markdown")).to_contain_text("<script>window.pwned=1;alert(1)</script>")
    await assert_harmless(chat.page)


async def test_half_streamed_output_is_harmless_too(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "ready")
    await chat.page.evaluate(
        """(intruders) => {
          window.seen = 0;
          new MutationObserver(() => { window.seen += document.querySelectorAll(intruders).length; })
            .observe(document.body, { childList: true, subtree: true, attributes: true });
        }""",
        INTRUDERS,
    )
    await stage.tell("ready", stream_text="\n".join(PAYLOADS[:8]), token_interval_seconds=0.005)
    await chat.ask("a question")
    assert await chat.page.evaluate("() => window.seen") == 0
    await assert_harmless(chat.page)


async def test_what_a_person_writes(stage: Site, watcher: Watcher) -> None:
    chat = await ChatPage.open(watcher, stage.url, "ready")
    text = "\n".join(PAYLOADS).replace("\x00", "")
    await chat.ask(text)
    await expect(chat.questions).to_contain_text("<svg onload=window.pwned=1>")
    await assert_harmless(chat.page)


async def test_a_stored_conversation_that_was_tampered_with(stage: Site, watcher: Watcher) -> None:
    chat = ChatPage(await watcher.open(f"{stage.url}/login"))
    answer = {"text": PAYLOADS[3], "reasoning": PAYLOADS[0], "status": "cut", "note": PAYLOADS[5], "model": PAYLOADS[7]}
    figures = {"tokens": 3, "tokensPerSecond": 1, "reachedLimit": False}
    turns = [
        {"id": "a", "role": "user", "text": PAYLOADS[2]},
        {"id": "b", "role": "assistant", "shown": 0, "answers": [{**answer, **figures}]},
    ]
    await chat.page.evaluate("(turns) => localStorage.setItem('llamavisor.chat.v1', turns)", json.dumps(turns))
    await chat.page.goto(f"{stage.url}/chat?model={quote(PAYLOADS[0])}")
    await expect(chat.answers).to_contain_text("Cut off:")
    await assert_harmless(chat.page)


async def test_logs_model_names_and_errors(site: Site, watcher: Watcher) -> None:
    said = "\n".join(payload.replace("\x00", "") for payload in PAYLOADS)
    # The line that the classifier quotes in the card's headline, the timeline and the explanation.
    blamed = f"error loading model: {PAYLOADS[1]} {PAYLOADS[3]}"
    evil_file = site.home / "<img src=x onerror=window.pwned=1>.gguf"
    evil_file.write_bytes(site.model.read_bytes()[:4096])
    ready = site.stand_in(knobs={"stdout_text": said})
    ready["engine"]["extra_args"] = ["--alias", PAYLOADS[1]]
    await site.start(
        {
            "alias": ready,
            "file": {**site.stand_in(), "model": str(evil_file)},
            "crash": site.stand_in(knobs={"stderr_text": f"{said}\n{blamed}", "exit_at_once": True, "exit_code": 1}),
            "binary": {
                "engine": {"kind": "llama-server", "binary": f"/nowhere/{PAYLOADS[3]}"},
                "model": str(site.model),
            },
        }
    )
    for name, state in {"alias": "ready", "file": "ready", "crash": "error", "binary": "error"}.items():
        await site.reach(name, state)
    for javascript in (False, True):
        page = await watcher.open(site.url, java_script_enabled=javascript)
        await expect(page.locator("body")).to_contain_text(
            "error loading model: </script><script>window.pwned=1;alert(1)"
        )
        await expect(page.get_by_role("article", name="Instance alias").locator(".model-name")).to_contain_text(
            "</script>"
        )
        await expect(page.get_by_role("article", name="Instance file").locator(".model-name")).to_contain_text(
            "<img src=x"
        )
        await expect(page.locator("body")).to_contain_text("/nowhere/<img src=x onerror")
        if javascript:
            await assert_harmless(page)
    for summary in await page.locator("summary:visible").all():
        await summary.click()
    log = page.get_by_role("article", name="Instance alias").get_by_role("region", name="Log of alias")
    await expect(log).to_contain_text("<script>window.pwned=1;alert(1)</script>")
    await assert_harmless(page)
    chat = await ChatPage.open(watcher, site.url, "alias")
    await expect(chat.page.get_by_role("combobox", name="Model")).to_have_value("alias")
    await chat.ask("a question")
    await assert_harmless(chat.page)
    chat = await ChatPage.open(watcher, site.url, "crash")
    await expect(chat.page.locator('[data-part="strip-story"]')).to_contain_text("<script>")
    await assert_harmless(chat.page)


async def test_addresses(stage: Site, watcher: Watcher) -> None:
    watcher.tolerate(r"status of 40[0-9]")
    page = await watcher.open(stage.url)
    for path in ("/{}", "/login?next={}", "/admin/instances/{}", "/v1/models/{}"):
        for payload in (PAYLOADS[1], PAYLOADS[3]):
            await page.goto(stage.url + path.format(quote(payload, safe="")))
            await assert_harmless(page)


async def test_the_content_policy_stops_what_would_slip_through_and_the_watcher_tells(
    demo: Site, watcher: Watcher
) -> None:
    page = await watcher.open(f"{demo.url}/login")
    # What a content policy cannot stop is a refresh; against that, there is only not building it.
    for payload in (each for each in PAYLOADS if "http-equiv" not in each):
        await page.evaluate("(html) => document.querySelector('main').insertAdjacentHTML('beforeend', html)", payload)
    await page.evaluate("() => document.querySelector('main').append(document.createElement('script'))")
    await page.evaluate("() => { document.querySelector('main script').textContent = 'window.pwned = 1'; }")
    assert await page.evaluate("() => window.pwned === undefined")
    assert any("Content Security Policy" in fault for fault in watcher.faults)
    watcher.faults.clear()
    await page.evaluate("() => alert('to be noted')")
    assert watcher.faults == ["dialog: to be noted"]
    watcher.faults.clear()
    await page.evaluate("() => fetch('http://evil.example/').catch(() => undefined)")
    assert any("evil.example" in fault for fault in watcher.faults)
    watcher.tolerate("evil.example", "Content Security Policy", "status of 404")
