// The page: patients on the left, the slide in the middle, prediction and explanation on the right.
// Data reaches the document through textContent and properties only, never as HTML.

import { SlideViewer } from "./slide_viewer.js";

const MAX_ROWS = 400;
const GENES_SHOWN = 12;
const STRONGEST_PATCHES = 5;
const POLL_MS = 1000;

const at = (id) => document.getElementById(id);
const state = { run: null, rows: [], patient: null, explanation: null, patches: null, request: 0, selected: "" };
const viewer = new SlideViewer(at("stage"));

// --- server and document

async function api(path, options) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, options);
  } catch {
    throw new Error("The viewer does not answer. Is `subfuse serve` still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw Object.assign(new Error(content.detail ?? `The viewer answered ${answer.status}.`), { status: answer.status });
  }
  return content;
}

const part = encodeURIComponent;
const patientPath = (patient) => `patients/${part(patient)}`;

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function fail(error) {
  at("error").textContent = error ? error.message : "";
  at("error").hidden = !error;
}

const guarded = (action) => async (...values) => {
  try {
    await action(...values);
  } catch (error) {
    fail(error);
  }
};

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
  select.disabled = options.length === 0;
}

const shown = (value) => value.toFixed(3).replace("-", "−");
const signed = (value) => (value > 0 ? "+" : "") + shown(value);
const percent = (value) => `${(100 * value).toFixed(0)} %`;

// A number whose exact value stays with it.
function number(value, text, name) {
  return make("span", { className: "number", textContent: text, data: { value: String(value), name } });
}

function bar(share, kind = "") {
  const filled = make("i", { className: kind });
  filled.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
  return make("span", { className: "bar", ariaHidden: "true" }, filled);
}

// A bar to both sides of zero.
function signedBar(value, limit) {
  const filled = make("i", { className: value < 0 ? "negative" : "positive" });
  const half = 50 * Math.min(1, Math.abs(value) / (limit || 1));
  filled.style.width = `${half}%`;
  filled.style.left = `${value < 0 ? 50 - half : 50}%`;
  return make("span", { className: "bar signed", ariaHidden: "true" }, filled);
}

function table(caption, head, rows) {
  const header = make("tr", {}, ...head.map((text) => make("th", { scope: "col", textContent: text })));
  const lines = rows.map(([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...cells.map((cell) => make("td", {}, cell))),
  );
  return make("table", {}, make("caption", { textContent: caption }), make("thead", {}, header), make("tbody", {}, ...lines));
}

// --- run and patients

const task = () => state.run.tasks.find((known) => known.name === at("task").value);

async function start() {
  state.run = await api("run");
  at("cohort").textContent = state.run.cohort;
  at("notice").textContent = state.run.notice;
  document.title = `${state.run.cohort} · subfuse viewer`;
  fill(at("task"), state.run.tasks.map(({ name }) => [name, name]));
  await chooseTask();
  await openNamed();
  if (!state.patient && state.rows.length) {
    const unknown = at("error").textContent;
    await choosePatient(state.rows[0].patient_id);
    fail(unknown ? new Error(unknown) : null);
  }
}

// Opens the patient that the address names: #patient=IDENTIFIER.
async function openNamed() {
  const named = new URLSearchParams(location.hash.slice(1)).get("patient");
  if (named === null || named === state.selected) return;
  await guarded(choosePatient)(named);
}

async function chooseTask() {
  const { models, splits, kind, classes } = task();
  const model = at("model").value || state.run.explained_model;
  fill(at("model"), models.map((name) => [name, name]), model);
  fill(at("split"), splits.map((name) => [name, name]), at("split").value);
  const outcomes = kind === "survival" ? [["event=true", "event"], ["event=false", "no event"]]
    : classes.map((name) => [`label=${part(name)}`, name]);
  fill(at("outcome"), [["", "any"], ...outcomes]);
  await loadPatients();
  if (state.patient) await showTask();
}

async function loadPatients() {
  const request = ++state.request;
  const filters = [`query=${part(at("query").value)}`, at("outcome").value, at("data").value].filter(Boolean);
  const path = `patients?task=${part(task().name)}&model=${part(at("model").value)}&split=${part(at("split").value)}`;
  const rows = await api([path, ...filters].join("&"));
  if (request !== state.request) return; // a later filter has been answered already
  fail(null);
  state.rows = at("order").value === "name" ? rows.sort((a, b) => a.patient_id.localeCompare(b.patient_id)) : rows;
  showPatients();
}

function showPatients() {
  const rows = state.rows.slice(0, MAX_ROWS);
  const hidden = state.rows.length - rows.length;
  at("count").textContent = rows.length
    ? `${state.rows.length} ${state.rows.length === 1 ? "patient" : "patients"}${hidden ? `, the first ${MAX_ROWS} shown` : ""}`
    : "No patient matches.";
  at("list").hidden = rows.length === 0;
  at("list").replaceChildren(...rows.map(patientRow));
  markSelected();
}

function patientRow(row, index) {
  const { risk, risk_percentile: percentile, predicted_class: predicted, outcome } = row;
  const probability = predicted === null ? null : row.probabilities[predicted];
  const value = row.predicted_value !== null ? number(row.predicted_value, shown(row.predicted_value), "predicted_value") : risk !== null
    ? number(risk, percentile === null ? shown(risk) : `percentile ${percentile.toFixed(0)}`, "risk")
    : predicted === null ? make("span", { textContent: "no prediction" })
      : number(probability, `${predicted} ${percent(probability)}`, "probability");
  if (risk !== null) value.title = `risk ${shown(risk)}`;
  const measured = outcome.value === null ? null : shown(outcome.value);
  const known = measured ?? outcome.label ?? (outcome.event === null ? "unknown" : outcome.event ? "event" : "no event");
  const line = make("li", { role: "option", id: `patient-${index}`, data: { patient: row.patient_id } },
    make("span", { className: "line" },
      make("span", { className: "name", textContent: row.patient_id }),
      make("span", { className: "known", textContent: known })),
    make("span", { className: "line" }, bar(risk !== null ? (percentile ?? 0) / 100 : probability ?? 0), value),
    make("span", { className: "marks", textContent: [row.has_slides ? "" : "no slide", row.has_expression ? "" : "no expression",
      row.explained ? "explained" : ""].filter(Boolean).join(" · ") }));
  line.addEventListener("click", guarded(() => choosePatient(row.patient_id)));
  return line;
}

function markSelected() {
  at("list").removeAttribute("aria-activedescendant");
  for (const line of at("list").children) {
    const chosen = line.dataset.patient === state.selected;
    line.setAttribute("aria-selected", String(chosen));
    if (chosen) {
      at("list").setAttribute("aria-activedescendant", line.id);
      line.scrollIntoView({ block: "nearest" });
    }
  }
}

function pressInList(event) {
  const rows = state.rows.slice(0, MAX_ROWS);
  const place = rows.findIndex((row) => row.patient_id === state.selected);
  const target = { ArrowDown: place + 1, ArrowUp: Math.max(0, place - 1), Home: 0, End: rows.length - 1 }[event.key];
  if (target === undefined || !rows[target]) return;
  event.preventDefault();
  guarded(choosePatient)(rows[target].patient_id);
}

// --- one patient

async function choosePatient(patientId) {
  state.selected = patientId;
  markSelected();
  const page = document.querySelector("main");
  page.ariaBusy = "true";
  try {
    await showPatient(patientId);
  } finally {
    if (state.selected === patientId) page.ariaBusy = "false"; // else another one was chosen meanwhile
  }
}

async function showPatient(patientId) {
  const patient = await api(patientPath(patientId));
  if (state.selected !== patientId) return; // another one was chosen meanwhile
  fail(null);
  state.patient = patient;
  history.replaceState(null, "", `#patient=${part(patientId)}`);
  at("detail").hidden = at("slide-section").hidden = false;
  at("patient-title").textContent = patient.patient_id;
  const facts = [["cohort", patient.cohort], ["site", patient.site], ...Object.entries(patient.labels)];
  at("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [
    make("dt", { textContent: name }), make("dd", { textContent: value })]));
  showUpload();
  fill(at("slide"), patient.slides.map((name) => [name, name]));
  await showTask();
  if (state.patient === patient) await showSlide();
}

const heldOut = ({ split }) => split === "test" || split === "new";

async function showTask() {
  showPrediction();
  await showExplanation();
}

function showPrediction() {
  const ofModel = state.patient.predictions.filter((p) => p.task === task().name && p.model === at("model").value);
  const chosen = ofModel.filter(heldOut);
  const rows = (chosen.length ? chosen : ofModel).map((p) => predictionCard(p));
  at("prediction").replaceChildren(...(rows.length ? rows : [make("p", { textContent: "This model did not predict the patient." })]));
}

function duration(days) { // as in the report
  const [count, noun] = days >= 365 ? [String(Number((days / 365.25).toPrecision(2))), "year"] : [String(Math.round(days / 30.44)), "month"];
  return `${count} ${noun}${count === "1" ? "" : "s"}`;
}

// A probability, and beside it the same recalibrated on the model's validation patients, where there are enough.
function chance(probability, recalibrated, name) {
  const after = recalibrated === null ? [] : [make("span", { className: "remark" }, "recalibrated ",
    number(recalibrated, percent(recalibrated), `recalibrated_${name}`))];
  return make("span", {}, bar(probability), number(probability, percent(probability), name), ...after);
}

function predictionCard(p) {
  const source = p.split === "test" ? "held out from training" : p.split === "new" ? "new patient" : `${p.split} patient of this model`;
  const lines = [];
  if (p.risk !== null) {
    lines.push(["risk", number(p.risk, shown(p.risk), "risk")]);
    if (p.risk_percentile !== null) lines.push(["higher than", number(p.risk_percentile,
      `${p.risk_percentile.toFixed(0)} % of the training patients`, "risk_percentile")]);
  }
  if (p.predicted_value !== null) lines.push(["predicted value", number(p.predicted_value, shown(p.predicted_value), "predicted_value")]);
  for (const { days, probability, recalibrated } of p.survival) {
    lines.push([`free of the event at ${duration(days)}`, chance(probability, recalibrated, `survival_${days}`)]);
  }
  for (const [name, probability] of Object.entries(p.probabilities)) {
    lines.push([name, chance(probability, p.recalibrated[name] ?? null, `p_${name}`)]);
  }
  const { time_days: time, event, label, value } = p.outcome;
  const known = (value === null ? null : shown(value)) ?? label ?? (time === null ? "unknown" : `${event ? "event" : "no event"} after ${duration(time)}`);
  lines.push(["known outcome", known]);
  const list = lines.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", {}, value)]);
  return make("div", { className: "prediction", data: { model: p.model, fold: p.fold } },
    make("p", { className: "remark", textContent: `fold ${p.fold}, repeat ${p.repeat}: ${source}` }), make("dl", {}, ...list));
}

async function showExplanation() {
  const [patient, name] = [state.patient, task().name];
  const exists = patient.explained_tasks.includes(name);
  at("explain").hidden = exists;
  at("explain-state").textContent = exists ? "" : "Not explained yet.";
  state.explanation = exists ? await api(`${patientPath(patient.patient_id)}/explanations/${part(name)}?genes=${GENES_SHOWN}`) : null;
  if (patient !== state.patient || name !== task().name) return;
  const score = state.explanation?.score_name ?? "the prediction";
  at("score-title").textContent = `What ${score} is made of`;
  at("legend-words").textContent = `lowers ${score} · raises ${score}`;
  at("ledger").replaceChildren(...(state.explanation ? ledger(state.explanation) : []));
  at("genes").replaceChildren(...(state.explanation ? genes(state.explanation) : []));
  await showPatches();
}

function ledger({ ledger: rows, score, score_name: name_of_score, model, fold }) {
  const limit = Math.max(...rows.map((row) => Math.abs(row.contribution)));
  const name = ({ subspace, modality }) => (modality === "baseline" ? "an unknown patient" : `${subspaceName(subspace)} · ${modality}`);
  const line = (text, value, key) => [text, signedBar(value, limit), number(value, signed(value), key)];
  const lines = rows.map((row) => line(name(row), row.contribution, `${row.subspace}/${row.modality}`));
  return [table(`Contributions to ${name_of_score} (${model}, fold ${fold})`, ["from", "", "adds"], [...lines, line(name_of_score, score, "score")])];
}

function genes({ genes: rows, n_genes: total, score_name: name }) {
  const limit = Math.max(0, ...rows.map((row) => Math.abs(row.contribution)));
  return [...new Set(rows.map(({ subspace }) => subspace))].map((subspace, index) => {
    const lines = rows.filter((row) => row.subspace === subspace)
      .map((row) => [row.gene, signedBar(row.contribution, limit), number(row.contribution, signed(row.contribution), row.gene)]);
    return make("details", { open: index === 0 }, make("summary", { textContent: `Genes: ${subspaceName(subspace)}` }),
      table(`The strongest of ${total} contributions of genes to ${name}`, ["gene", "", "adds"], lines));
  });
}

async function explain() {
  const patient = state.patient;
  at("explain").disabled = true;
  try {
    let job = await api(`${patientPath(patient.patient_id)}/explanations`, { method: "POST" });
    while (job.state === "running") {
      at("explain-progress").hidden = false;
      Object.assign(at("explain-progress"), { max: job.total, value: job.done });
      at("explain-state").textContent = `Explaining ${patient.patient_id}: ${job.done} of ${job.total} tasks done.`;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      job = await api(`jobs/${job.job_id}`);
    }
    if (job.state === "failed") throw new Error(`${patient.patient_id} could not be explained: ${job.error}`);
    await loadPatients();
    if (state.patient === patient) await choosePatient(patient.patient_id);
  } finally {
    at("explain").disabled = false;
    at("explain-progress").hidden = true;
    if (state.patient === patient && !state.explanation) at("explain-state").textContent = "Not explained yet.";
  }
}

// --- slide

async function showSlide() {
  const slideId = at("slide").value;
  viewer.show(null);
  at("slide-panel").hidden = !slideId;
  at("slide-state").textContent = slideId ? "" : "This patient has no slide.";
  if (!slideId) return showPatches();
  const slide = await api(`slides/${part(slideId)}`);
  if (slideId !== at("slide").value) return;
  viewer.show(slide);
  const shows = { slide: "Only the thumbnail can be shown", places: "Only the places of the patches can be shown",
    none: "Neither the slide nor the places of its patches are known here" }[slide.picture];
  at("slide-state").textContent = slide.available ? "" : `${shows}: ${slide.reason}`;
  await showPatches();
}

async function showPatches() {
  const [explanation, slideId] = [state.explanation, at("slide").value];
  state.patches = explanation?.slides.includes(slideId)
    ? await api(`${patientPath(explanation.patient_id)}/explanations/${part(explanation.task)}/slides/${part(slideId)}`)
    : null;
  if (explanation !== state.explanation || slideId !== at("slide").value) return;
  const names = state.patches ? Object.keys(state.patches.scores) : [];
  const before = at("overlay-choices").querySelector("input:checked")?.value;
  const chosen = ["", ...names].includes(before) ? before : "";
  at("overlay-choices").replaceChildren(...["", ...names].map((name) => {
    const input = make("input", { type: "radio", name: "overlay", value: name, checked: name === chosen });
    input.addEventListener("change", showOverlay);
    return make("label", { className: "check" }, input, scoreName(name));
  }));
  at("overlays").hidden = at("opacity-label").hidden = at("below").hidden = names.length === 0;
  at("points-label").hidden = !state.patches || Object.keys(state.patches.points).length === 0;
  viewer.setOverlay({ patches: state.patches });
  showOverlay();
}

// A score's name for people: columns of an explanation are subspaces, `total`, and the same by other methods.
function scoreName(name) {
  const [, method, subspace] = /^(occlusion)_(.+)$/.exec(name) ?? [];
  return method ? `${subspaceName(subspace)} (${method})` : { "": "none", total: "sum" }[name] ?? subspaceName(name);
}

function subspaceName(name) {
  return name === "linear_path" ? "linear path" : name;
}

function showOverlay() {
  const name = at("overlay-choices").querySelector("input:checked")?.value ?? "";
  const { patches } = state;
  viewer.setOverlay({ name, opacity: at("opacity").value / 100, showPoints: at("points").checked && !at("points-label").hidden });
  at("legend").hidden = !patches || !name;
  if (patches && name) {
    at("legend-low").textContent = `−${patches.limits[name].toPrecision(2)}`;
    at("legend-high").textContent = `+${patches.limits[name].toPrecision(2)}`;
  }
  showPatch(viewer.selected);
}

function showPatch(index) {
  const { patches } = state;
  if (!patches) {
    at("patch").replaceChildren();
    return;
  }
  const name = viewer.overlay.name || Object.keys(patches.scores).at(-1);
  if (index < 0) {
    const order = patches.scores[name].map((score, i) => [Math.abs(score), i]).sort((a, b) => b[0] - a[0]);
    const buttons = order.slice(0, STRONGEST_PATCHES).map(([, i]) => {
      const button = make("button", { type: "button", textContent: signed(patches.scores[name][i]) });
      button.addEventListener("click", () => viewer.select(i, { centre: true }));
      return button;
    });
    at("patch").replaceChildren(make("span", { className: "remark", textContent: "Strongest patches: " }), ...buttons);
    return;
  }
  const cells = Object.entries(patches.scores).flatMap(([subspace, scores]) => [
    make("dt", { textContent: scoreName(subspace) }),
    make("dd", {}, number(scores[index], signed(scores[index]), subspace))]);
  at("patch").replaceChildren(
    make("span", { className: "remark", textContent: `Patch at x ${patches.x[index]}, y ${patches.y[index]}` }),
    make("dl", {}, ...cells));
}

// --- another expression file

function showUpload() {
  const unit = state.patient.upload_unit;
  at("compared").replaceChildren();
  at("upload-state").textContent = "";
  at("file").value = "";
  at("drop").hidden = !unit;
  at("upload-help").textContent = unit
    ? `CSV, TSV or workbook (xlsx, ods) of one patient: gene and value per line, one row below a header, or a GDC STAR file. Unit: ${unit}, ` +
      `as in the cohort. At most ${state.run.upload_limit_bytes / 1e6} MB. The file is not kept.`
    : "Not possible here: the cohort has no expression, or standardises it within the cohort.";
}

async function upload(file) {
  if (!file) return;
  const [patient, model, limit] = [state.patient, at("model").value, state.run.upload_limit_bytes];
  at("compared").replaceChildren();
  if (!patient) throw new Error("Choose a patient first.");
  if (file.size > limit) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB. At most ${limit / 1e6} MB are accepted.`);
  at("upload-state").textContent = `Predicting ${patient.patient_id} with ${file.name} …`;
  try {
    const answer = await api(`${patientPath(patient.patient_id)}/predict?model=${part(model)}`, {
      method: "POST", headers: { "content-type": file.type || "text/csv" }, body: file });
    if (state.patient !== patient) return;
    fail(null);
    at("upload-state").textContent = `${file.name}: ${answer.n_genes_used} genes used, read as ${answer.unit}${answer.transform === "none" ? "" : ` and converted to ${answer.transform}`}; ${answer.n_genes_ignored} others ignored. ${answer.warnings.join(" ")}`;
    showCompared(answer);
  } catch (error) {
    at("upload-state").textContent = "";
    throw error;
  }
}

function showCompared({ before, after }) {
  const both = (name, probability, recalibrated) =>
    [[name, probability], ...(recalibrated === null ? [] : [[`${name}, recalibrated`, recalibrated]])];
  const values = (p) => Object.fromEntries([
    ...(p.risk === null ? [] : [["risk", p.risk], ["risk percentile", p.risk_percentile]]),
    ...(p.predicted_value === null ? [] : [["predicted value", p.predicted_value]]),
    ...p.survival.flatMap(({ days, probability, recalibrated }) => both(`free of the event at ${duration(days)}`, probability, recalibrated)),
    ...Object.entries(p.probabilities).flatMap(([name, probability]) => both(name, probability, p.recalibrated[name] ?? null))]);
  const same = (a, b) => a.task === b.task && a.fold === b.fold && a.repeat === b.repeat;
  const tables = after.map((p) => {
    const [now, earlier] = [values(p), values(before.find((other) => same(other, p)) ?? { risk: null, predicted_value: null, survival: [], probabilities: {} })];
    const cell = (value, name) => (value === undefined || value === null ? "none" : number(value, shown(value), name));
    return table(`${p.task}, ${p.model}, fold ${p.fold}`, ["", "before", "with this file"],
      Object.keys(now).map((name) => [name, cell(earlier[name], `before/${p.task}/${name}`), cell(now[name], `after/${p.task}/${name}`)]));
  });
  at("compared").replaceChildren(...tables);
}

// --- what people do

at("task").addEventListener("change", guarded(chooseTask));
at("model").addEventListener("change", guarded(async () => {
  await loadPatients();
  if (state.patient) showPrediction();
}));
for (const id of ["split", "outcome", "data", "order"]) at(id).addEventListener("change", guarded(loadPatients));
at("query").addEventListener("input", guarded(loadPatients));
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("list").addEventListener("keydown", pressInList);
at("slide").addEventListener("change", guarded(showSlide));
at("opacity").addEventListener("input", showOverlay);
at("points").addEventListener("change", showOverlay);
at("zoom-in").addEventListener("click", () => viewer.zoomIn());
at("zoom-out").addEventListener("click", () => viewer.zoomOut());
at("fit").addEventListener("click", () => viewer.fit());
at("explain").addEventListener("click", guarded(explain));
at("file").addEventListener("change", guarded(() => upload(at("file").files[0])));
viewer.addEventListener("patch", (event) => showPatch(event.detail));
viewer.addEventListener("failure", () => {
  at("slide-state").textContent = "Some tiles of this slide cannot be read; the thumbnail is shown in their place.";
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
at("drop").addEventListener("drop", guarded((event) => upload(event.dataTransfer.files[0])));
addEventListener("hashchange", guarded(openNamed));
guarded(start)();
