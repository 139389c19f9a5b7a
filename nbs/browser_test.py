"""Use chapter 16's playground as a reader would, in a real JupyterLab in headless Chromium.

    python nbs/browser_test.py [--shots FOLDER]

Needs the development environment, and Chromium (apt-get install chromium). Where there is none it
says so and ends with status 0, but with status 1 where CI is set. It works on a copy of the
notebook and speaks to this machine alone; --shots keeps pictures of the panel.
"""

import argparse
import contextlib
import html
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPT = 'Parameters\n----------\nx : <b>array & co</b>'
LONG, SHORT = (
    600,
    30,
)  # tokens to ask for: enough to be stopped on the way, and few enough to wait for
CHROMIUM = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
]
LAB = [
    '--no-browser',
    '--ip=127.0.0.1',
    '--ServerApp.port_retries=0',
    '--allow-root',
    '--IdentityProvider.token=',
    '--LabApp.news_url=None',
    '--LabApp.expose_app_in_browser=True',
    '--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate',
]
SETTINGS = {
    '@jupyterlab/notebook-extension:tracker': {'windowingMode': 'none'},
    '@jupyterlab/apputils-extension:notification': {'fetchNews': 'false'},
}
SCRIPT = """() => {
    const context = jupyterapp.shell.currentWidget.sessionContext,
        cells = () => [...jupyterapp.shell.currentWidget.content.model.cells]
    const panel = () => [...document.querySelectorAll('.smolgpt-panel')].at(-1)
    const all = part => [...panel()?.querySelectorAll('.smolgpt-' + part) ?? []]
        .filter(e => e.offsetParent)
    const words = e => e?.innerText.replaceAll('\\u00a0', ' ') ?? ''
    const plain = label => label.replaceAll('⏎', '\\n').replaceAll('⇥', '\\t').replaceAll('␣', ' ')
        .replace(/^…$/, '')
    // a token is a coloured piece while the text is made, and a button afterwards; each is in one
    // place only
    const pieces = () => [
        ...all('view')[0]?.querySelectorAll('.smolgpt-piece, .smolgpt-token') ?? []]
        .filter(e => e.offsetParent)
        .map(e => e.matches('button') ? plain(e.textContent) : words(e))
    const text = () => words(all('text')[0]?.querySelector('b')) + pieces().join('')
    const smol = window.smol = {
        context, all, changes: 0, lengths: [], problems: [], ran: true,
        run() {
            smol.ran = false;
            jupyterapp.commands.execute('notebook:run-all-cells').finally(() => smol.ran = true) },
        idle: () => smol.ran && context.session?.kernel?.status == 'idle',
        grown: () => smol.lengths.filter((n, i, all) => n > all[i - 1]).length,
        errors: () => cells().filter(c => c.type == 'code' && c.sharedModel.source.trim())
            .flatMap(c => c.executionCount == null ? ['a cell that did not run']
            : c.toJSON().outputs.filter(o => o.output_type == 'error')
                .map(o => o.ename + ': ' + o.evalue)),
        state: () => ({
            text: text(), status: words(all('status')[0]).trim(), changes: smol.changes,
            lengths: smol.lengths,
            pieces: pieces(), tokens: all('token').map(e => e.textContent),
            alternatives: all('alternative').map(e => e.textContent),
            busy: !!all('generate')[0]?.disabled,
            made: all('history')[0]?.querySelectorAll('option').length - 1,
            markup: [...all('view')[0]?.querySelectorAll('*') ?? []]
                .some(e => e.textContent == 'array & co')}),
    }
    context.iopubMessage.connect((_, {header, content: c}) => {
        if (header.msg_type == 'error' || c.name == 'stderr' && c.text.includes('Traceback'))
            smol.problems.push(c.text ?? c.ename + ': ' + c.evalue)
    })
    new MutationObserver(() => {
        const n = text().length; smol.changes++;
        if (n != smol.lengths.at(-1)) smol.lengths.push(n) })
        .observe(document.querySelector('.jp-Notebook'),
            {subtree: true, childList: true, characterData: true})
}"""
passed = []


def check(right, what, detail=''):
    assert right, f'not so: {what} {detail}'
    print('ok ', what, flush=True)
    passed.append(what)


def until(ready, what, seconds=60):
    end = time.time() + seconds
    while not ready():
        assert time.time() < end, f'waited {seconds} s in vain for {what}'
        time.sleep(0.1)


def parts(page, name):
    return page.locator('.smolgpt-panel').last.locator(f'.smolgpt-{name}')


def state(page):
    return page.evaluate('smol.state()')


def shot(page, folder, name):
    folder and page.locator('.smolgpt-panel').last.screenshot(path=folder / f'{name}.png')


def settled(page, before, status=r'\d+ tokens?\b', seconds=120):
    """What the panel shows once it has changed since `before`, has stood still for 1.5 seconds, can
    generate, and its status is such."""
    end, last, since = time.time() + seconds, before, time.time()
    while (
        last['changes'] == before['changes']
        or time.time() < since + 1.5
        or last['busy']
        or not re.search(status, last['status'])
    ):
        assert time.time() < end, (
            f'waited {seconds} s in vain for the end of a run: status {last["status"]!r}, '
            f'text …{last["text"][-60:]!r}'
        )
        time.sleep(0.25)
        now = state(page)
        if (now['changes'], now['busy']) != (last['changes'], last['busy']):
            last, since = now, time.time()
    return last


def type_in(page, name, value):
    parts(page, name).first.locator('.widget-readout, textarea, input').last.click()
    page.keyboard.press('Control+A')
    page.keyboard.press('Delete')
    page.keyboard.type(f'{value}' if name == 'prompt' else f'{value}\n')


def generate(page, clicks=1, **fields):  # returns what was there before
    for name, value in fields.items():
        type_in(page, name, value)
    time.sleep(0.5)
    page.evaluate('smol.lengths = smol.lengths.slice(-1)')
    before = state(page)
    parts(page, 'generate').first.click(click_count=clicks)
    return before


def run_cells(page, what):
    until(lambda: page.evaluate('smol.idle()'), 'an idle kernel', 120)
    page.evaluate('smol.run()')
    until(lambda: page.evaluate('smol.idle()'), 'all cells to run', 300)
    check(not (errors := page.evaluate('smol.errors()')), what, errors)


def stream_and_stop(page, shots):
    for seed in range(2, 8):  # a text may end by itself before Stop is clicked
        before = generate(page, prompt=PROMPT, length=LONG, seed=seed)
        end = time.time() + 15
        while (steps := page.evaluate('smol.grown()')) < 4 and time.time() < end:
            time.sleep(0.01)  # one may be the prompt
        if seed == 2:
            shot(page, shots, 'streaming')
        page.evaluate("smol.all('stop')[0].click()")
        now = settled(page, before)
        if 'stop' in now['status'].lower():
            break
    check(steps >= 4, 'text streams in', f'(the text grew {steps} times)')
    check(
        now['text'].startswith(PROMPT) and not now['markup'],
        'markup in the prompt is shown as text',
        f'({now["text"][:80]!r})',
    )
    right = (
        'stop' in now['status'].lower()
        and 0 < int(re.search(r'(\d+) token', now['status'])[1]) < LONG
    )
    check(
        right and len(now['pieces']) < LONG,
        'Stop ends a run',
        f'(status {now["status"]!r}, {len(now["pieces"])} pieces)',
    )
    time.sleep(1)
    check(
        state(page)['text'] == now['text'], f'after Stop the text stays as it is ({now["status"]})'
    )
    shot(page, shots, 'stopped')
    return seed


def branch(page, shots):
    old = settled(page, generate(page, length=SHORT, seed=1))
    number, pieces = len(old['tokens']), old['pieces']
    check(
        4 <= number <= SHORT and number <= len(pieces) <= number + 1,
        f'each of {number} tokens is a button, and shown once',
        f'({len(pieces)} pieces in the text)',
    )
    kept = PROMPT + ''.join(pieces[:3])
    parts(page, 'token').nth(3).click()
    until(lambda: state(page)['alternatives'], 'alternatives')
    labels = state(page)['alternatives']
    check(
        len(labels) == 5 and all(re.search(r'\d\s*%$', label.strip()) for label in labels),
        'a click on a token shows five alternatives',
        labels,
    )
    shot(page, shots, 'alternatives')

    def plain(text):
        return re.sub(
            r'[\s⏎␣·↵→⇥]', '', text
        )  # without white space and the marks that stand for it

    names = [plain(re.sub(r'\s*[\d.<]+\s*%\s*$', '', label)) for label in labels]
    choice = next(
        i
        for i in (1, 2, 3, 4, 0)
        if names[i] != plain(pieces[3]) and not names[i].startswith(('<|', '…'))
    )
    before = state(page)
    parts(page, 'alternative').nth(choice).click()
    new = settled(page, before)
    right = (
        new['text'].startswith(kept)
        and new['pieces'][:3] == pieces[:3]
        and list(map(plain, new['pieces'][3:4])) == [names[choice]]
    )
    check(
        right and new['text'] != old['text'],
        'a click on an alternative goes on from there',
        f'({labels[choice]!r} after {kept!r} gave {new["text"]!r})',
    )
    shot(page, shots, 'branched')


def edges(page, folder, seed):
    parts(page, 'save-json').first.click()
    until(lambda: list(folder.rglob('*.json')), 'a JSON file')
    time.sleep(1)
    check(
        all(json.loads(f.read_text(encoding='utf-8')) for f in folder.rglob('*.json')),
        'the JSON button writes a file that parses',
    )
    now = settled(page, generate(page, prompt=''), status='.', seconds=30)
    check(
        'Traceback' not in now['status'] and not page.evaluate('smol.problems.length'),
        f'without a prompt: {now["status"]}',
    )
    made = state(page)['made']
    now = settled(page, generate(page, prompt=PROMPT, length=LONG, seed=seed, clicks=2))
    check(
        now['made'] == made + 1 and len(now['pieces']) <= LONG + 1,
        'two quick clicks on Generate are one run',
        f'({made} texts before, {now["made"]} after)',
    )


def save(page, notebook):
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    outputs = [
        o.get('data', {})
        for c in json.loads(notebook.read_text(encoding='utf-8'))['cells']
        for o in c.get('outputs', [])
    ]
    pages = [p for p in (''.join(o.get('text/html', '')) for o in outputs) if 'smolgpt-static' in p]
    found = [
        html.unescape(re.sub('<[^>]+>', '', re.sub('<br ?/?>', '\n', p))).split() for p in pages
    ]
    found, wanted = [' '.join(words) for words in found], ' '.join(state(page)['text'].split())
    check(
        any(wanted in f for f in found) and '<b>array' not in ''.join(pages),
        'the saved notebook holds the last text',
        f'(wanted {wanted!r}, found {found})',
    )


@contextlib.contextmanager
def jupyter_lab(temp):
    """A JupyterLab on TEMP/nbs, with settings of its own and this Python as its kernel; gives its
    address."""
    settings = temp / 'config/labconfig/default_setting_overrides.json'
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SETTINGS))
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(('JUPYTER', 'JPY_', 'IPYTHON'))
    } | dict(IPYTHONDIR=f'{temp}/ipython')
    env |= {
        f'JUPYTER_{name.upper()}_DIR': f'{temp}/{name}' for name in ('config', 'data', 'runtime')
    }
    command = [
        sys.executable,
        '-m',
        'jupyter',
        'lab',
        f'--port={port}',
        f'--ServerApp.root_dir={temp}/nbs',
        *LAB,
    ]
    with open(temp / 'lab.log', 'w') as log:
        lab = subprocess.Popen(
            command, cwd=temp / 'nbs', env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(
            lambda: lab.poll() is not None or socket.socket().connect_ex(('127.0.0.1', port)) == 0,
            'JupyterLab',
            120,
        )
        assert lab.poll() is None, (
            'JupyterLab did not start: ' + (temp / 'lab.log').read_text()[-300:]
        )
        yield f'http://127.0.0.1:{port}'
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):  # at the first it ends its kernels too
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(lab.pid, sign)
                lab.wait(20)


def run(notebook, shots, temp, chromium):
    from playwright.sync_api import sync_playwright

    shutil.copytree(ROOT / 'assets/tiny', temp / 'assets/tiny')
    book, copy = json.loads(notebook.read_text(encoding='utf-8')), temp / 'nbs' / notebook.name
    bare = {'code': dict(outputs=[], execution_count=None)}
    book['cells'] = [
        c | bare.get(c['cell_type'], {})
        for c in book['cells']
        if 'nbdev_export()' not in ''.join(c['source'])
    ]
    copy.parent.mkdir()
    copy.write_text(json.dumps(book), encoding='utf-8')
    with jupyter_lab(temp) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=CHROMIUM)
        page, said = browser.new_page(viewport={'width': 1400, 'height': 1100}), []
        page.on(
            'console',
            lambda m: m.type == 'error' and said.append(f'{m.text} {m.location.get("url", "")}'),
        )
        page.on('pageerror', lambda e: said.append(f'page error: {e}'))
        page.on(
            'request',
            lambda r: (
                r.url.startswith(('http', 'ws'))
                and not r.url.startswith(address)
                and said.append(f'a request to {r.url}')
            ),
        )
        try:
            page.goto(f'{address}/lab/tree/{notebook.name}')
            until(
                lambda: page.evaluate(
                    'window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady'
                ),
                'the notebook',
                180,
            )
            page.evaluate(SCRIPT)
            run_cells(page, 'all cells run without an error')
            shot(page, shots, 'start')
            if shots:
                page.screenshot(path=shots / 'page.png')
            seed = stream_and_stop(page, shots)  # of a text that is long enough
            branch(page, shots)
            edges(page, temp / 'nbs', seed)
            save(page, copy)
            page.evaluate('smol.context.session.kernel.restart()')
            time.sleep(2)
            run_cells(page, 'the kernel restarts with the panel open, and all cells run again')
            now = settled(page, generate(page, prompt=PROMPT, length=SHORT, seed=3))
            check(
                now['text'].startswith(PROMPT) and now['pieces'],
                f'and the panel generates again: {now["status"]}',
                f'(text {now["text"]!r})',
            )
            check(not said, 'no error in the browser, no request to another machine', said)
            check(
                not (errors := page.evaluate('[...smol.errors(), ...smol.problems]')),
                'no error from the kernel',
                errors,
            )
        except Exception as error:
            path = (shots or Path(tempfile.mkdtemp())) / 'failure.png'
            with contextlib.suppress(Exception):
                page.screenshot(path=path)
                print('screenshot:', path)
                said += page.evaluate('smol.problems')
            raise AssertionError(
                f'{str(error)[:600]} {said or ""} (last good: {"".join(passed[-1:])})'
            ) from error
        finally:
            browser.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--shots', type=Path, help='keep pictures of the panel in this folder')
    parser.add_argument('--notebook', type=Path, default=ROOT / 'nbs/16_playground.ipynb')
    args = parser.parse_args()
    chromium = next(
        filter(
            None,
            map(
                shutil.which,
                ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'],
            ),
        ),
        None,
    )
    if not chromium or not importlib.util.find_spec('playwright'):
        print(
            'skipped: no',
            'playwright found (pip install playwright)'
            if chromium
            else 'Chromium found (apt-get install chromium)',
        )
        sys.exit(1 if os.environ.get('CI') else 0)
    for sign in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(
            sign, lambda *_: sys.exit('FAILED  told to end, or not done after 20 minutes')
        )
    signal.alarm(1200)
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temp:
            run(args.notebook, args.shots, Path(temp).resolve(), chromium)
    except Exception as error:
        sys.exit('FAILED  ' + ' '.join(str(error).split())[:1000])
    print(len(passed), 'checks passed')


if __name__ == '__main__':
    main()
