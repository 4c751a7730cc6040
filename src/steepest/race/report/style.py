"""The style sheet: system fonts, light and dark, narrow screens, paper."""

from steepest.race.report.palette import DARK, LIGHT

_LIGHT = (
    "--bg:#ffffff;--ink:#1b2026;--soft:#5a6470;--faint:#8a939e;--rule:#dfe3e8;--ghost:#ced4db;"
    "--panel:#f4f6f8;--good:#006b4b;--bad:#a03a00;"
)
_DARK = (
    "--bg:#14171b;--ink:#e8ebee;--soft:#a6afb9;--faint:#7c8691;--rule:#2c3239;--ghost:#434b54;"
    "--panel:#1e2328;--good:#4fd1a5;--bad:#ff9d66;"
)


def _series(colours: tuple[str, ...]) -> str:
    return "".join(f"--c{i}:{colour};" for i, colour in enumerate(colours))


_LIGHT_ALL = _LIGHT + _series(LIGHT)
_DARK_ALL = _DARK + _series(DARK)

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 64px}
h1,h2,h3{line-height:1.25;text-wrap:balance}
h1{font-size:1rem;font-weight:600;color:var(--soft);margin:0 0 12px}
.headline{font-size:1.65rem;line-height:1.32;font-weight:600;letter-spacing:-.012em;margin:0 0 14px;
 max-width:34em;text-wrap:pretty}
h2{font-size:1.4rem;letter-spacing:-.01em;margin:56px 0 4px;padding-top:24px;border-top:2px solid var(--ink)}
h3{font-size:1.02rem;margin:36px 0 4px}
p{max-width:44em;margin:0 0 12px;overflow-wrap:anywhere}
.lead{font-size:1.06rem}
.meta,.note,figcaption{color:var(--soft);font-size:.9rem}
.note{margin:2px 0 10px;max-width:56em}
nav{display:flex;flex-wrap:wrap;gap:6px 18px;margin:18px 0 0;font-size:.95rem}
a{color:inherit;text-underline-offset:3px}
.scroll{overflow-x:auto;margin:8px 0 4px;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums lining-nums;min-width:100%}
th,td{padding:7px 14px 7px 0;text-align:left;vertical-align:middle;border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:4px}
thead th{font-weight:600;color:var(--soft);font-size:.82rem;line-height:1.3;vertical-align:bottom;
 border-bottom:1px solid var(--faint)}
tbody th{font-weight:600;white-space:nowrap}
.num{text-align:right;white-space:nowrap}
thead .num{white-space:normal}
.keep{white-space:nowrap}
.sub{color:var(--soft);font-size:.85em;white-space:nowrap}
td .sub,th .sub{display:block;font-weight:400}
.best td,.best th{background:var(--panel)}
.up{color:var(--good);font-weight:600;white-space:nowrap}
.down{color:var(--bad);white-space:nowrap}
.none{color:var(--soft)}
.matrix td{white-space:nowrap;text-align:center;padding:6px 8px}
.matrix thead th{text-align:center;padding:6px 8px}
.matrix thead th:first-child{text-align:left;padding-left:0}
.matrix tbody th,.stick{position:sticky;left:0;background:var(--bg);z-index:1}
.best .stick{background:var(--panel)}
.self{background:var(--panel)}
.prose{min-width:17em;max-width:34em}
.claims .sub{white-space:normal}
.claims .line-of{white-space:nowrap}
.line-of{display:block}
.claims td,.claims th{vertical-align:top}
figure .scroll{margin-top:6px}
.error{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85em;overflow-wrap:anywhere;min-width:220px}
pre{background:var(--panel);padding:10px 14px;overflow-x:auto;font-size:.88rem;margin:8px 0 12px;
 white-space:pre-wrap;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:minmax(9em,15em) 1fr;gap:6px 20px;margin:8px 0;font-size:.93rem}
dt{font-weight:600}
dd{margin:0;overflow-wrap:anywhere;max-width:46em}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:20px 36px;margin:10px 0}
.many{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:20px 28px;margin:12px 0}
figure{margin:0;min-width:0;break-inside:avoid}
figcaption{font-weight:600;color:var(--ink);margin-bottom:6px}
figcaption .sub{display:inline;font-weight:400;white-space:normal}
svg{display:block;width:100%;height:auto;overflow:visible}
svg.strip{width:180px;height:22px}
svg.mark{display:inline-block;width:30px;height:12px;margin-right:8px;vertical-align:-1px}
svg text{font-size:11px;fill:var(--ink);font-variant-numeric:tabular-nums}
svg.small text{font-size:10px}
svg text.head{font-size:11.5px;font-weight:600}
svg text.tick,svg text.axis{fill:var(--soft)}
.grid{stroke:var(--rule);stroke-width:1}
.base{stroke:var(--faint);stroke-width:1}
.goal{stroke:var(--ink);stroke-width:1;stroke-dasharray:1.5 3}
.line{fill:none;stroke:var(--s);stroke-width:1.8;stroke-linejoin:round}
.twin{fill:none;stroke:var(--ink);stroke-width:2;stroke-dasharray:0.5 5;stroke-linecap:round}
.ghost{fill:none;stroke:var(--ghost);stroke-width:1.3}
.band{fill:var(--s);fill-opacity:.14;stroke:none}
.leader{fill:none;stroke:var(--s);stroke-width:.8;opacity:.7}
.m{fill:var(--s);stroke:var(--bg);stroke-width:.8}
.hollow{fill:var(--bg);stroke:var(--s);stroke-width:1.3}
.ring{fill:none;stroke:var(--s);stroke-width:1.2}
.region{fill:var(--panel);stroke:none}
.cross{fill:none;stroke:var(--bad);stroke-width:1.7}
.bar{fill:var(--s)}
.whisker{fill:none;stroke:var(--s);stroke-width:1.4}
.seed{fill:none;stroke:var(--ink);stroke-width:.9}
.files{margin-top:14px}
details{margin:10px 0}
summary{cursor:pointer;color:var(--soft);font-size:.92rem}
footer{margin-top:56px;color:var(--soft);font-size:.85rem}
@media screen and (max-width:760px){
 main{padding:24px 16px 48px}
 .headline{font-size:1.3rem}
 .pair{grid-template-columns:1fr}
 svg text{font-size:13.5px}
 svg.small text{font-size:10px}
 svg text.head{font-size:12px}
 dl{grid-template-columns:1fr;gap:2px}
 dd{margin-bottom:10px}
 .claims thead{display:none}
 .claims tr{display:block;padding:8px 0;border-bottom:1px solid var(--rule)}
 .claims td,.claims th{display:block;border:0;padding:2px 0;min-width:0;white-space:normal}
 .claims .line-of{white-space:normal}
 th,td{padding-right:12px}
 tbody .stick,.matrix tbody th{white-space:normal;overflow-wrap:anywhere;max-width:56vw;min-width:12.5em}
}
"""

_PRINT = """
@page{margin:14mm}
body{font-size:10.5pt}
main{max-width:none;padding:0}
nav,.files{display:none}
.matrix tbody th,.stick{position:static}
.scroll{overflow:visible}
table{font-size:8.2pt}
th,td{padding:3pt 6pt 3pt 0}
.matrix td{min-width:0}
h2{margin-top:18pt;break-after:avoid}
h3,.note{break-after:avoid}
.note{break-inside:avoid}
.pair.tables{grid-template-columns:1fr}
.pair.tables svg.chart{max-width:110mm}
tr,figure{break-inside:avoid}
details::details-content{content-visibility:visible;height:auto}
.headline{font-size:16pt}
svg.strip{width:120px;height:15px}
"""


def style_sheet() -> str:
    """Return the whole style sheet."""
    series = "".join(f".s{i}{{--s:var(--c{i})}}" for i in range(len(LIGHT)))
    return (
        f":root{{color-scheme:light dark;{_LIGHT_ALL}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK_ALL}}}}}"
        f"{series}{_RULES}@media print{{{_PRINT}}}"
    )
