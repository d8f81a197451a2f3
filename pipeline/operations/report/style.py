"""How the page looks: one style sheet, by day and by night; the page's policy names it by its hash."""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1c2321;--soft:#57615d;--line:#dcdad2;--rail:#ebe9e2;
--good:#1d6f5b;--bad:#a8441c;--idle:#8b8f8c}
@media (prefers-color-scheme:dark){:root{--paper:#131716;--card:#1a201e;--ink:#e5eae7;--soft:#a3aeaa;--line:#2d3633;
--rail:#262e2b;--good:#5cc3a5;--bad:#f09a6e;--idle:#7d8783}}
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
@media (max-width:40rem){main,header,footer{padding-left:.9rem;padding-right:.9rem}header{padding-top:1.25rem}
th,td{padding:.4rem .6rem}.heads{grid-template-columns:1fr 1fr}.heads dd{font-size:1.35rem}
.thumbs{grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr))}td.long,th.long{min-width:8.5rem}
.funnel .in{padding-left:.9rem}.heads div:last-child:nth-child(odd){grid-column:1/-1}.funnel td.b{width:auto}}
@media print{.wide,figure,.heads div{break-inside:avoid}}
"""
