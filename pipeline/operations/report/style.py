"""How the page looks: one style sheet, by day and by night; the page's policy names it by its hash."""

PARTS = (10, 18, 27, 36, 46, 58, 74, 100)
"""Of the colour in each shade of a matrix: r1 to r8 what is right, w1 to w8 what is wrong; percent."""
_SHADES = "".join(
    f".{kind}{level}{{background:color-mix(in srgb,var(--{kind}) {part}%,var(--card))}}\n"
    for kind in "rw"
    for level, part in enumerate(PARTS, start=1)
)
STYLE = (
    """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1c2321;--soft:#57615d;--line:#dcdad2;--rail:#ebe9e2;
--good:#1d6f5b;--bad:#a8441c;--idle:#8b8f8c;--l0:#0b62a4;--l1:#b8470f;--l2:#00735a;--l3:#87409b;--l4:#7d6200;--l5:#1f7fa8;
--l6:#4d5552;--l7:#b03a72;--r:#62a8e0;--w:#f19a5c}
@media (prefers-color-scheme:dark){:root{--paper:#131716;--card:#1a201e;--ink:#e5eae7;--soft:#a3aeaa;--line:#2d3633;
--rail:#262e2b;--good:#5cc3a5;--bad:#f09a6e;--idle:#7d8783;--l0:#6fb7ea;--l1:#f3a276;--l2:#5cc3a5;--l3:#d7a3e0;--l4:#dcc052;
--l5:#9ad6ef;--l6:#bcc5c1;--l7:#f2a1c5;--r:#1f68a4;--w:#964810}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:66rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}
h1{font-size:1.6rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.75rem 0 .5rem}
h3{font-size:1rem;margin:0 0 .25rem}
p{margin:.25rem 0 1rem;max-width:46rem}
.soft,caption,figcaption,small{color:var(--soft)}
.heads{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.5rem 0 0;padding:0}
.heads div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1rem}
.heads dt{color:var(--soft);font-size:.875rem}
.heads dd{margin:0;font-size:1.7rem;font-weight:600;line-height:1.25;font-variant-numeric:tabular-nums}
.heads dd small{display:block;font-size:.8125rem;font-weight:400;line-height:1.35}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.5rem;margin:.5rem 0 1rem}
.wide:focus-visible,summary:focus-visible{outline:2px solid var(--good);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
caption{text-align:left;padding:.6rem .9rem .2rem;font-size:.875rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .9rem;border-top:1px solid var(--line);font-weight:400}
thead td{border-top:0}
thead th{border-top:0;color:var(--soft);font-size:.8125rem;white-space:nowrap}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td.long,th.long{min-width:11rem;overflow-wrap:anywhere}
tbody th{min-width:7.5rem;max-width:26rem;overflow-wrap:anywhere}
td.b{width:35%;min-width:4.5rem;vertical-align:middle}
code{font:.875em/1.45 ui-monospace,"SFMono-Regular","DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.funnel .in{display:block;padding-left:1.5rem;color:var(--soft)}
.funnel td.b{width:45%}
svg{display:block}
.bar{width:100%;height:.6rem;border-radius:2px}
.chart{width:100%;height:4.5rem}
.rail{fill:var(--rail)}.ground{fill:var(--line)}.hit{fill:transparent}
.good{fill:var(--good)}.bad{fill:var(--bad)}.idle{fill:var(--idle)}
g:hover .hit{fill:var(--rail)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.75rem;margin:.5rem 0 1rem}
figure{margin:0;min-width:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem 1rem}
figcaption{font-size:.8125rem;display:flex;justify-content:space-between;gap:1rem}
.thumbs{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.75rem;margin:.5rem 0 1rem}
.thumbs figcaption{display:block;overflow-wrap:anywhere}
.thumbs .see{display:flex;align-items:center;justify-content:center;height:7rem;background:var(--rail);
border-radius:.25rem;margin-bottom:.5rem;padding:.5rem;overflow:hidden;text-align:center}
.thumbs img{max-width:96px;max-height:96px}
details{margin:.25rem 0}
summary{cursor:pointer;padding:.2rem 0}
ul{padding-left:1.2rem}
li{margin:.25rem 0;overflow-wrap:anywhere}
bdi{overflow-wrap:anywhere}
footer{padding-top:2rem;padding-bottom:2.5rem;font-size:.875rem;color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:.75rem;margin:.5rem 0 1rem}
.plots p{margin:0 0 .25rem;font-size:.8125rem}
.plot{width:100%;height:auto;overflow:visible}
.plot text{font-size:13px;fill:var(--soft)}.plot .name{fill:var(--ink)}
.grid,.axis{fill:none;stroke:var(--line);stroke-width:1}.axis{stroke:var(--idle)}
.line{fill:none;stroke-width:2;stroke-linejoin:round;pointer-events:none}.faint{stroke-width:1.25;opacity:.5}
.dot{stroke-width:1.5;stroke-dasharray:none!important;fill:var(--card)}
.l0{stroke:var(--l0)}.l1{stroke:var(--l1);stroke-dasharray:7 3}.l2{stroke:var(--l2);stroke-dasharray:2 2}
.l3{stroke:var(--l3);stroke-dasharray:10 3 2 3}.l4{stroke:var(--l4);stroke-dasharray:4 2}
.l5{stroke:var(--l5);stroke-dasharray:12 4}.l6{stroke:var(--l6);stroke-dasharray:1 3}
.l7{stroke:var(--l7);stroke-dasharray:6 2 1 2 1 2}
.snapshot{fill:var(--idle)}.best{fill:var(--l4);stroke:var(--ink);stroke-width:1}
.attempt{fill:none;stroke:var(--soft);stroke-width:1;stroke-dasharray:3 4}
.legend{list-style:none;margin:0 0 .35rem;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.8125rem}
.legend li{display:flex;align-items:center;gap:.4rem;margin:0}
.key{width:1.75rem;height:.65rem;flex:none}
.pair{display:flex;flex-wrap:wrap;gap:0 .75rem;align-items:flex-start}
.pair>*{flex:1 1 27rem}
.pair>.matrix{flex:0 1 auto;max-width:100%}
.matrix table{width:auto}
.matrix td,.matrix th{padding:.35rem .5rem;min-width:0}
.matrix td{min-width:2.7rem}
.alarm{border-left:.25rem solid var(--bad);padding-left:.75rem;overflow-wrap:anywhere}
.mistakes{grid-template-columns:repeat(auto-fill,minmax(11rem,1fr))}
.mistakes img{width:96px;height:96px;object-fit:contain;image-rendering:pixelated}
@media (max-width:40rem){main,header,footer{padding-left:.9rem;padding-right:.9rem}header{padding-top:1.25rem}
th,td{padding:.4rem .6rem}.heads{grid-template-columns:1fr 1fr}.heads dd{font-size:1.35rem}
.thumbs{grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr))}td.long,th.long{min-width:8.5rem}
.funnel .in{padding-left:.9rem}.heads div:last-child:nth-child(odd){grid-column:1/-1}.funnel td.b{width:auto}}
@media print{.wide,figure,.heads div{break-inside:avoid}}
"""
    + _SHADES
)
