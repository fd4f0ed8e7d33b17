/** The playground: a photo and a model -> POST /v1/models/{model}/classify -> bars and times, or the server's sentence. */

const TOP_K = 5;
const STAGES = ["decode", "queue", "engine", "total"];
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30000;
const COPIED_MS = 2000;

const COUNT = new Intl.NumberFormat("en");
const MILLISECONDS = new Intl.NumberFormat("en", {
  maximumFractionDigits: 2,
  maximumSignificantDigits: 3,
  roundingPriority: "lessPrecision",
});

/** A failure whose message is a sentence for the person. `isPassing` tells that trying again may help. */
class Refusal extends Error {
  constructor(sentence, isPassing) {
    super(sentence);
    this.isPassing = isPassing;
  }
}

/** Ask the server; resolve to the JSON of its answer. */
async function ask(path, options) {
  const reply = await fetch(path, options).catch(() => {
    throw new Refusal("The server cannot be reached.", true);
  });
  const body = await reply.json().catch(() => null);
  if (reply.ok && body) return body;
  const sentence = body?.error ?? `The server answered with status ${reply.status}, and gave no reason.`;
  throw new Refusal(sentence, reply.status === 429 || reply.status >= 500);
}

function classifyPath(model) {
  return `/v1/models/${encodeURIComponent(model.name)}/classify`;
}

async function classify(model, photo, signal) {
  // Not the type of the file: a JSON file would be taken for a request in JSON, and not for a bad photo.
  const headers = { "Content-Type": "application/octet-stream" };
  const path = `${classifyPath(model)}?top_k=${TOP_K}`;
  try {
    return await ask(path, { method: "POST", headers, body: photo, signal });
  } catch (refusal) {
    if (await isReadable(photo)) throw refusal;
    throw new Refusal("This file cannot be read. It may have been moved or changed, or be a folder.", false);
  }
}

/** Tell whether the browser can read the file: a folder, or one that has changed since, fails as a dead server does. */
async function isReadable(file) {
  return file.slice(0, 1).arrayBuffer().then(() => true, () => false);
}

/** Keep to the model that was chosen; otherwise take the first that can answer, and rather a trained one. */
function pickModel(models, name) {
  const ready = models.filter((model) => model.ready);
  return models.find((model) => model.name === name) ?? ready.find((model) => !model.untrained) ?? ready[0];
}

function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.01 ? "< 0.01 %" : `${value.toFixed(2)} %`;
}

function factsOf(model) {
  if (!model.ready) return `Not ready: ${model.reason}`;
  const facts = [`version ${model.version}`, model.engine, `${COUNT.format(model.classes)}\u00a0classes`];
  if (model.accuracy) facts.push(accuracyOf(model.accuracy));
  return facts.join(" \u00b7 ");
}

function accuracyOf({ dataset, top1, n }) {
  return `${(100 * top1).toFixed(1)} % top-1 on ${dataset}, n=${COUNT.format(n)}`;
}

/** Make an element that holds text, never markup: a label or a reason may look like some. */
function make(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

function makeOption(model) {
  const untrained = model.untrained ? " (untrained)" : "";
  const option = new Option(model.name + (model.ready ? untrained : ` (not ready: ${model.reason})`), model.name);
  option.disabled = !model.ready;
  return option;
}

function makeClass({ label, score }) {
  const fill = make("span", "", "fill");
  fill.style.setProperty("--share", score);
  const track = make("span", "", "track");
  track.append(fill);
  const item = make("li", "");
  item.append(make("span", label, "label"), " ", make("span", percent(score), "score"), track);
  return item;
}

function makeTime(stage, milliseconds) {
  const time = document.createElement("div");
  time.append(make("dt", stage), make("dd", `${MILLISECONDS.format(milliseconds)} ms`));
  return time;
}

/** What the page shows; it knows its elements, and nothing of requests. */
class View {
  #previewUrl = "";
  #parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

  /** Call `person` with what is done: took(photo), chose(name), retried(). */
  listen(person) {
    const { photo, model, again, copy, preview, answerTitle } = this.#parts;
    photo.addEventListener("change", () => {
      person.took(photo.files[0]);
      photo.value = ""; // or choosing the same file again would change nothing
    });
    model.addEventListener("change", () => person.chose(model.value));
    again.addEventListener("click", () => {
      answerTitle.focus(); // the button goes, and would take the focus along
      person.retried();
    });
    copy.addEventListener("click", () => this.#copyCommand());
    preview.addEventListener("load", () => this.#showPreview(true));
    preview.addEventListener("error", () => this.#showPreview(false));
  }

  showPhoto(photo) {
    const { shown, preview, caption, choose } = this.#parts;
    URL.revokeObjectURL(this.#previewUrl);
    this.#previewUrl = URL.createObjectURL(photo);
    preview.src = this.#previewUrl;
    preview.alt = `Your photo ${photo.name}`;
    caption.textContent = photo.name;
    choose.textContent = "Choose another";
    choose.classList.add("quiet");
    shown.hidden = false;
  }

  #showPreview(isPossible) {
    this.#parts.preview.hidden = !isPossible;
    this.#parts.noPreview.hidden = isPossible;
  }

  showModels(models, chosen) {
    const { model, notReady, notReadyCount, reasons } = this.#parts;
    const placeholder = new Option(models.length ? "No model is ready yet" : "This server has no models", "");
    model.replaceChildren(...(chosen ? [] : [placeholder]), ...models.map(makeOption));
    model.value = chosen?.name ?? "";
    model.disabled = !chosen;
    const waiting = models.filter((one) => !one.ready);
    notReady.hidden = !waiting.length;
    notReadyCount.textContent = waiting.length === 1 ? "1 model is not ready" : `${waiting.length} models are not ready`;
    reasons.replaceChildren(...waiting.map((one) => make("li", `${one.name}: ${one.reason}`)));
  }

  showNoList(sentence) {
    this.#parts.model.replaceChildren(new Option(sentence, ""));
    this.#say(sentence);
  }

  showChosen(model) {
    const { facts, untrained, command } = this.#parts;
    facts.textContent = model ? factsOf(model) : "";
    untrained.hidden = !model?.untrained;
    const path = classifyPath(model ?? { name: "NAME" });
    command.textContent = `curl --data-binary @photo.jpg ${location.origin}${path}`;
  }

  showBusy(model) {
    this.#clearRefusal();
    this.#parts.answer.setAttribute("aria-busy", "true");
    this.#say(`Classifying with ${model.name}`);
  }

  showWaiting() {
    this.#parts.hint.textContent = "Your photo is classified as soon as a model is ready.";
    this.#say(this.#parts.hint.textContent);
  }

  showAnswer({ model, version, engine, results, timing_ms: times }) {
    const { classes, times: list, answeredBy } = this.#parts;
    const best = results[0].classes;
    classes.replaceChildren(...best.map(makeClass));
    list.replaceChildren(...STAGES.map((stage) => makeTime(stage, times[stage])));
    answeredBy.textContent = `${model} version ${version} on ${engine}`;
    this.#settle("answered");
    this.#say(`${best[0].label}, ${percent(best[0].score)}, says ${model}. ${best.length} classes are listed.`);
  }

  showRefusal({ message, isPassing }) {
    this.#settle("refused");
    this.#say("");
    this.#parts.refusal.textContent = message;
    this.#parts.again.hidden = !isPassing;
  }

  #settle(state) {
    this.#parts.answer.dataset.state = state;
    this.#parts.answer.setAttribute("aria-busy", "false");
  }

  #clearRefusal() {
    const { answer, refusal, again } = this.#parts;
    if (answer.dataset.state === "refused") answer.dataset.state = "empty";
    refusal.textContent = "";
    again.hidden = true;
  }

  #say(sentence) {
    this.#parts.status.textContent = sentence;
  }

  async #copyCommand() {
    const { command, copy } = this.#parts;
    getSelection().selectAllChildren(command);
    // Outside of https and localhost a page may not write to the clipboard: the person copies what is selected.
    const copied = await navigator.clipboard?.writeText(command.textContent).then(() => true, () => false);
    copy.textContent = copied ? "Copied" : "Selected, now copy";
    this.#say(copy.textContent);
    setTimeout(() => (copy.textContent = "Copy"), COPIED_MS);
  }
}

/** Holds the photo, the models and the newest request; older replies are never shown. */
class Playground {
  #view;
  #photo;
  #model;
  #models;
  #newest = new AbortController();
  #isWatching = false;

  constructor(view) {
    this.#view = view;
  }

  took(photo) {
    if (!photo) return;
    this.#photo = photo;
    this.#view.showPhoto(photo);
    this.#classify();
  }

  chose(name) {
    this.#model = pickModel(this.#models, name);
    this.#view.showChosen(this.#model);
    this.#classify();
  }

  retried() {
    this.#classify();
  }

  /** Read the list of models, again and again with longer pauses, until all of them are ready. */
  async watchModels() {
    if (this.#isWatching) return;
    this.#isWatching = true;
    let pauseMs = FIRST_PAUSE_MS;
    while (!(await this.#readModels())) {
      await new Promise((resume) => setTimeout(resume, pauseMs));
      pauseMs = Math.min(1.5 * pauseMs, LONGEST_PAUSE_MS);
    }
    this.#isWatching = false;
  }

  async #readModels() {
    try {
      const { models } = await ask("/v1/models");
      this.#replaceModels(models);
      return models.every((model) => model.ready);
    } catch (refusal) {
      if (!this.#models) this.#view.showNoList(refusal.message);
      return false;
    }
  }

  #replaceModels(models) {
    if (JSON.stringify(models) === JSON.stringify(this.#models)) return; // leaves an open list alone
    const before = this.#model?.name;
    this.#models = models;
    this.#model = pickModel(models, before);
    this.#view.showModels(models, this.#model);
    this.#view.showChosen(this.#model);
    if (this.#model?.name !== before) this.#classify();
  }

  async #classify() {
    if (!this.#photo) return;
    if (!this.#model) {
      this.#view.showWaiting();
      return;
    }
    this.#newest.abort();
    this.#newest = new AbortController();
    const { signal } = this.#newest;
    this.#view.showBusy(this.#model);
    try {
      const answer = await classify(this.#model, this.#photo, signal);
      if (!signal.aborted) this.#view.showAnswer(answer);
    } catch (refusal) {
      if (signal.aborted) return;
      this.#view.showRefusal(refusal);
      if (refusal.isPassing) this.watchModels();
    }
  }
}

function hasFiles(transfer) {
  return transfer?.types.includes("Files") ?? false;
}

/** Take photos that are dropped anywhere, or pasted. */
function listenToThePage(playground) {
  const markDragging = (isDragging) => document.body.classList.toggle("dragging", isDragging);
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault(); // or the browser would open the file instead
    markDragging(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) markDragging(false); // it left the window, not just an element
  });
  document.addEventListener("drop", (event) => {
    markDragging(false);
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    playground.took(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => playground.took(event.clipboardData.files[0]));
}

const view = new View();
const playground = new Playground(view);
view.showChosen();
view.listen(playground);
listenToThePage(playground);
playground.watchModels();
