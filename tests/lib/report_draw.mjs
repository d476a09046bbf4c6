// report_draw.mjs PAGE...: runs the script of report pages on a document that holds what is put into it and no more, and checks what
// was drawn. Pages of tests/test_report.c are known by name. Exits 1 naming each page's first fault.
import { readFileSync } from "node:fs";
import { basename } from "node:path";

const fault = text => {
  throw new Error(text);
};
const tags = new Set(("a b code dd details div dl dt figcaption figure footer h1 h2 h3 header i li main nav p pre section span summary table tbody td " +
  "th thead tr ul svg title text tspan line rect circle polyline").split(" "));
const attributes = new Set(("aria-label class colspan cx cy dx dy height href id overflow points preserveAspectRatio r role rx scope style viewBox " +
  "width x x1 x2 y y1 y2").split(" "));
const numbers = new Set("cx cy dx dy height r rx width x x1 x2 y y1 y2".split(" "));

class Element {
  constructor(tag) {
    if (!tags.has(tag)) fault(`an element ${tag}`);
    this.tag = tag;
    this.attributes = {};
    this.children = [];
  }
  setAttribute(name, value) {
    if (!attributes.has(name)) fault(`an attribute ${name}="${value}"`);
    if (/NaN|Infinity|undefined|null/.test(value) && name !== "aria-label") fault(`${name}="${value}"`);
    if (numbers.has(name) && !/^-?[0-9.]+%?$/.test(value)) fault(`${name}="${value}"`);
    if (["width", "height"].includes(name) && value.startsWith("-")) fault(`${name}="${value}"`);
    if (name === "points" && !/^\d+,\d+( \d+,\d+)+$/.test(value)) fault(`points="${value}"`);
    if (name === "href" && !/^#[a-z]+$/.test(value)) fault(`href="${value}"`);
    if (name === "style" && !/^(padding:[-0-9px ]+|(fill|stroke|background):var\(--[a-z0-9]+\)[-a-z0-9.:;]*)$/.test(value)) fault(`style="${value}"`);
    this.attributes[name] = value;
  }
  append(...children) {
    for (const c of children) {
      if (!(c instanceof Element) && typeof c !== "string") fault(`a child ${c}`);
      this.children.push(c);
    }
  }
}
for (const name of ["innerHTML", "outerHTML", "textContent"]) // the last is for what is read alone
  Object.defineProperty(Element.prototype, name, { set: () => fault(`${name} is set`) });

const all = (e, test) => e.children.flatMap(c => (c instanceof Element ? [...(test(c) ? [c] : []), ...all(c, test)] : []));
const text = e => e.children.map(c => (c instanceof Element ? text(c) : c)).join("");
const find = (e, tag, pattern) => all(e, x => x.tag === tag && pattern.test(text(x)));
const wants = (is, what) => is || fault(what);

const shapes = {
  whole(page, words) {
    wants(find(page, "summary", /^Block /).length === 32, "32 folded blocks");
    wants(find(page, "title", /_proj, final: /).length === 224, "a bar per linear");
    wants(find(page, "title", /^block \d+, \w+_proj: /).length === 224, "a cell per linear");
    wants(all(page, e => e.tag === "polyline").length >= 2 * 65, "two curves per stage");
    for (const w of ["7.885 \u00b1 0.066", "81.23 \u00b1 0.21 %", "15.0 GiB \u2192 3.81 GiB", "6.241 \u2192 7.885", "0.1932", "4:56:45", "predicted 4:41:40",
      "gsq quantize 'a <b> & \"c\"' -o out", "optimiser state", "start kept", "Radeon", "worst: block "])
      wants(words.includes(w), `"${w}"`);
    wants(/\d+ of 4096 rows rolled back/.test(words), "rows rolled back");
  },
  small(page, words) {
    wants(find(page, "summary", /^Block /).length === 0, "no folded block");
    wants(find(page, "h3", /^Block /).length === 3 + 6, "a card per block and half");
    wants(find(page, "tr", /^--steps123set/).length === 1, "--steps is marked as set");
    wants(words.includes("of round-to-nearest's"), "what it is compared with");
  },
  refined(page, words) {
    wants(words.includes("of that of the file's codes"), "what it is compared with");
    wants(find(page, "title", /_proj, the file's codes: /).length === 21, "a bar per linear");
  },
  experts(page, words) {
    const of = 61 * 4 + 3 + 60 * 3; // linears, and roles of a layer's experts
    wants(find(page, "summary", /^Block /).length === 61, "61 folded blocks");
    wants(find(page, "title", /^block \d+, experts' (gate|up|down): \S+, worst 0.75$/).length === 180, "a cell per role");
    wants(find(page, "title", /, final: /).length === of, "a bar per linear and role");
    wants(find(page, "tr", /^up_proj, 384/).length === 60, "a row per layer and role");
    for (const w of ["up_proj, the worst: expert 3 0.75 (10003 tokens), expert 200 0.5 (10200 tokens)", "Starved: 2 of 384: 7 (9 tokens), 11 (0 tokens)", "120 experts saw few tokens", "All " + (61 * 4 + 3 + 60 * 3 * 384) + " linears",
      "385 linears stayed in 16 bits", "expert 3's", "model.layers.60.mlp.experts.*.up_proj (384)"])
      wants(words.includes(w), `"${w}"`);
  },
  bare(page, words) {
    for (const w of ["--eval FILE", "Not measured", "3.81 GiB"]) wants(words.includes(w), `"${w}"`);
    wants(!all(page, e => e.attributes.id === "training").length, "no training");
    wants(all(page, e => e.attributes.class === "unused" && text(e).startsWith("--steps")).length === 1, "--steps is not used");
  },
  empty: (page, words) => wants(words.includes("No linear was quantized."), "no linears"),
  odd: (page, words) => wants(!words.includes("NaN") && !words.includes("Infinity"), "numbers"),
  hostile(page, words) {
    for (const w of [`<script>alert("1")</script> & 'co' \\xff\\x01`, "</code><b x='1'>", 'out"onload="x', 'a <b> & "c"', "<&\">=4,g64"])
      wants(words.includes(w), `"${w}"`);
  },
};

// Round values, at most as many as asked for, in order and within the axis.
function checkAxes(script) {
  const source = script.slice(script.indexOf("(() => {") + 8, script.indexOf("// ---- charts"));
  const { axis, ticks, at } = new Function("document", source + "return {axis, ticks, at};")({});
  for (const range of [[0.012, 0.034], [1e-9, 3], [0.5, 0.5], [7, 7.0001], [1e-300, 1e29], [3, 40000], [-20, -3], [0, 86400 * 3], [0, 0]])
    for (const unit of ["plain", "bytes", "time", "count", "percent"])
      for (const log of [false, true])
        for (const fromZero of [false, true]) {
          const a = axis({ unit, log }, [...range, null, NaN], fromZero), what = JSON.stringify({ range, unit, log, fromZero, a });
          wants(Number.isFinite(a.lo) && Number.isFinite(a.hi) && a.lo < a.hi, `a range: ${what}`);
          wants(at(a, a.lo) === 0 && at(a, a.hi) === 1 && at(a, null) === 0, `its ends: ${what}`);
          for (let most = 2; most <= 9; most++) {
            const t = ticks(a, most);
            wants(t.length <= most && t.every((v, i) => Number.isFinite(v) && (!i || v > t[i - 1])), `${most} ticks ${t}: ${what}`);
          }
          wants(unit === "count" || ticks(a, 9).length >= 2, `too few ticks: ${what}`);
        }
}

function check(path) {
  const file = readFileSync(path, "utf8");
  const scripts = [...file.matchAll(/<script([^>]*)>([^]*?)<\/script>/g)];
  wants(scripts.length === 2 && scripts[0][1] === ' type="application/json" id="run"' && scripts[1][1] === "", "two scripts");
  JSON.parse(scripts[0][2]);
  const page = new Element("main");
  const document = {
    title: "",
    createElement: tag => new Element(tag),
    createElementNS: (space, tag) => (space === "http://www.w3.org/2000/svg" ? new Element(tag) : fault(`a namespace ${space}`)),
    getElementById: id => (id === "page" ? page : id === "run" ? { textContent: scripts[0][2] } : fault(`#${id}`)),
  };
  new Function("document", scripts[1][2])(document);
  const words = text(page), bad = /.{0,30}(undefined|\[object).{0,30}/.exec(words);
  if (bad) fault(bad[0]);
  wants(document.title.endsWith(": gsq report"), "its title");
  for (const s of all(page, e => e.tag === "svg" && e.attributes.role)) wants(s.attributes["aria-label"] && s.children[0].tag === "title", "a chart without a title");
  const links = all(page, e => e.tag === "a").map(e => e.attributes.href.slice(1)), parts = all(page, e => e.tag === "section").map(e => e.attributes.id);
  wants(links.join() === parts.join(), "a link per part");
  shapes[basename(path, ".html")]?.(page, words);
  checkAxes(scripts[1][2]);
}

let bad = 0;
for (const path of process.argv.slice(2)) {
  try {
    check(path);
    console.log(`${path}: drawn`);
  } catch (e) {
    bad++;
    console.log(`${path}: ${e.message.slice(0, 600)}`);
  }
}
process.exit(bad ? 1 : 0);
