// One rollout: its video, the timeline below it, and its numbers. The only player lives in this dialog.

const SPEEDS = [1, 2, 4, 10];
let order = [];
let opener = null;

function openRollout(key, keys) {
  order = keys;
  opener = document.activeElement;
  show({ rollout: key }, { push: true });
}

function player(rollout) {
  const video = element("video", { controls: true, muted: true, playsinline: true, preload: "metadata", poster: rollout.poster,
    "aria-label": `${words(rollout.task.name)}, instance ${rollout.column}, ${rollout.policy}` });
  video.muted = true;
  video.src = rollout.video;
  return video;
}

function speedButtons(change) {
  const group = element("div", { class: "choices", role: "group", "aria-label": "Speed" });
  const set = (speed) => {
    for (const button of group.children) button.setAttribute("aria-pressed", button.dataset.speed === String(speed));
    change(speed);
  };
  group.append(...SPEEDS.map((speed) =>
    element("button", { type: "button", "data-speed": speed, "aria-pressed": speed === 1, onclick: () => set(speed) }, `${speed}×`)));
  group.step = (by) => {
    const now = [...group.children].findIndex((button) => button.getAttribute("aria-pressed") === "true");
    set(SPEEDS[Math.min(Math.max(0, now + by), SPEEDS.length - 1)]);
  };
  return group;
}

// Traces lie beside the page, one script per task, and are loaded when a rollout of the task is opened.
const traces = new Map();
window.b1kTraces = (task, packed) => inflate(packed).catch(() => ({})).then(traces.get(task).resolve);

function inflate(packed) {
  const bytes = new Blob([unpack(packed)]).stream();
  return new Response(bytes.pipeThrough(new DecompressionStream("deflate"))).json();
}

function traceOf(rollout) {
  if (!rollout.hasTrace) return Promise.resolve(null);
  if (!traces.has(rollout.taskIndex)) {
    const waiting = {};
    waiting.promise = new Promise((resolve) => { waiting.resolve = resolve; });
    traces.set(rollout.taskIndex, waiting);
    const script = element("script", { src: `traces/${rollout.taskIndex}.js` });
    script.addEventListener("error", () => waiting.resolve({}));
    document.head.append(script);
  }
  return traces.get(rollout.taskIndex).promise.then((found) => found[rollout.index] || null);
}

// Calls of the network, written as differences: step, predicted stage, voted stage.
function callsOf(trace) {
  const calls = [];
  let step = 0;
  for (let place = 0; place + 2 < trace.calls.length; place += 3) {
    step += trace.calls[place];
    calls.push([step, trace.calls[place + 1], trace.calls[place + 2]]);
  }
  return calls;
}

const WIDTH = 1000;
const HEIGHT = 150;

function stepped(calls, value, steps, x, y) {
  let path = "";
  calls.forEach((call, place) => {
    const end = place + 1 < calls.length ? calls[place + 1][0] : steps;
    path += `${path ? "L" : "M"}${x(call[0]).toFixed(1)} ${y(call[value]).toFixed(1)}H${x(end).toFixed(1)}`;
  });
  return path;
}

function timeline(rollout, trace, video) {
  const calls = callsOf(trace);
  const steps = Math.max(trace.steps, 1);
  const stages = Math.max(rollout.task.stages - 1, 1, ...calls.map((call) => Math.max(call[1], call[2])));
  const x = (step) => (WIDTH * step) / steps;
  const y = (stage) => HEIGHT - 8 - ((HEIGHT - 20) * stage) / stages;
  const grid = Array.from({ length: stages + 1 }, (_, stage) => element("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(stage), y2: y(stage) }));
  const rules = trace.rules.map(([step, rule]) => element("line", { class: "rule", x1: x(step), x2: x(step), y1: 0, y2: HEIGHT }, element("title", {}, `${rule}, step ${step}`)));
  const head = element("line", { class: "head", x1: 0, x2: 0, y1: 0, y2: HEIGHT });
  const drawing = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, grid, rules,
    element("path", { class: "predicted", d: stepped(calls, 1, steps, x, y) }), element("path", { class: "voted", d: stepped(calls, 2, steps, x, y) }), head);
  const goals = trace.goals.map(({ name, changes }) => element("div", { class: "goal" },
    element("span", {}, name), element("svg", { viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" }, holding(changes, steps).map(([from, to]) =>
      element("rect", { x: x(from), y: 0, width: Math.max(x(to) - x(from), 2), height: 10 })))));
  const plot = element("div", { class: "stages" }, drawing);
  if (video) {
    video.addEventListener("timeupdate", () => {
      const place = video.duration ? (WIDTH * video.currentTime) / video.duration : 0;
      head.setAttribute("x1", place);
      head.setAttribute("x2", place);
    });
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      if (video.duration) video.currentTime = (video.duration * (event.clientX - box.left)) / box.width;
    });
  }
  return element("div", { class: "timeline" }, element("h3", {}, "Stages, rules and goal"),
    element("p", { class: "note legend" }, element("span", { class: "key voted" }, "stage by vote"), element("span", { class: "key predicted" }, "predicted"),
      trace.rules.length ? element("span", { class: "key rule" }, "rule") : null, trace.goals.length ? element("span", { class: "key goals" }, "goal holds") : null),
    plot, goals, element("details", {}, element("summary", {}, "As text"), asText(calls, trace)),
    trace.log ? [element("h3", {}, "Evaluator's log, as the rollout ended"), element("pre", { tabindex: 0 }, element("code", {}, trace.log))] : null);
}

function holding(changes, steps) {
  const spans = [];
  changes.forEach(([step, holds], place) => {
    if (holds) spans.push([step, changes[place + 1]?.[0] ?? steps]);
  });
  return spans;
}

function asText(calls, trace) {
  const moved = calls.filter((call, place) => !place || call[2] !== calls[place - 1][2]);
  const events = [
    ...moved.map(([step, , stage]) => [step, `stage ${stage}`]),
    ...trace.rules.map(([step, rule]) => [step, `rule ${words(rule)}`]),
    ...trace.goals.flatMap(({ name, changes }) => changes.filter(([step, holds]) => step || holds).map(([step, holds]) => [step, `${name} ${holds ? "holds" : "no longer holds"}`])),
  ].sort((a, b) => a[0] - b[0]);
  return element("ol", { class: "events" }, events.slice(0, 400).map(([step, text]) => element("li", {}, element("span", { class: "num" }, `step ${step} `), text)));
}

function facts(rollout) {
  const rows = [
    ["Outcome", OUTCOMES[rollout.outcome]], ["q", rollout.q.toFixed(3)],
    ["Steps", rollout.steps === null ? "" : `${rollout.steps.toLocaleString("en")} (${seconds(rollout.steps)})`],
    ["Speed", rollout.speed === null ? "" : `${rollout.speed.toFixed(2)} × human mean`],
    ["Base moved", rollout.distance === null ? "" : `${rollout.distance.toFixed(2)} m`],
    ["Starts", String(rollout.reruns.length + (rollout.steps === null ? 0 : 1))],
  ].filter(([, value]) => value !== "");
  return element("dl", { class: "facts" }, rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", { class: "num" }, value))));
}

function others(rollout) {
  const found = ROLLOUTS.filter((r) => r.taskIndex === rollout.taskIndex && r.column === rollout.column && r !== rollout);
  if (!found.length) return null;
  return element("p", {}, "Same instance: ", found.map((other) => [
    element("button", { type: "button", class: "link", onclick: () => show({ rollout: other.key }, { push: true }) }, `${other.policy} (${score(other)})`), " "]),
    rollout.hasVideo && found.some((other) => other.hasVideo)
      ? element("button", { type: "button", class: "plain", onclick: () => {
          const other = found.find((one) => one.hasVideo);
          closeRollout({ view: "pairs", task: rollout.task.name, first: other.policy, second: rollout.policy, pair: rollout.column });
        } }, "Play side by side")
      : null);
}

function fillDialog(rollout) {
  const video = rollout.hasVideo ? player(rollout) : null;
  // a rollout that was opened by its address stands among those that the filters leave
  if (!order.includes(rollout.key)) order = ROLLOUTS.filter((one) => matches(one) || one === rollout).map((one) => one.key);
  const place = order.indexOf(rollout.key);
  byId("rollout-title").textContent = `${words(rollout.task.name)}, instance ${rollout.column}`;
  byId("rollout-policy").replaceChildren(element("span", { class: `pill ${rollout.outcome}` }, score(rollout)), ` ${rollout.policy}${rollout.isChosen ? ", chosen for this task" : ""}`);
  byId("rollout-place").textContent = place >= 0 ? `${place + 1} of ${order.length}` : "";
  byId("rollout-back").disabled = place <= 0;
  byId("rollout-on").disabled = place < 0 || place >= order.length - 1;
  const stage = element("div", { class: "theatre" });
  if (video) {
    const speeds = speedButtons((speed) => { video.playbackRate = video.defaultPlaybackRate = speed; });
    stage.append(video, speeds);
    dialogSpeeds = speeds;
  } else stage.append(element("p", { class: "nothing" }, rollout.steps === null ? "This rollout never finished; there is no video of it." : "No video was made of this rollout."));
  const lines = element("div", {});
  const side = element("div", { class: "side" }, rollout.task.instruction ? element("p", { class: "instruction" }, rollout.task.instruction) : null, facts(rollout),
    rollout.guess ? element("p", {}, element("b", {}, `First guess: ${causeName(rollout.guess[0])}`), `: ${rollout.guess[1]}`) : null, labelPanel(rollout), others(rollout),
    rollout.reruns.length ? element("div", {}, element("h3", {}, "How earlier starts ended"), element("ol", {}, rollout.reruns.map((text) => element("li", {}, element("code", {}, text))))) : null);
  byId("rollout-body").replaceChildren(element("div", { class: "main" }, stage, lines), side);
  traceOf(rollout).then((trace) => {
    if (trace && state.rollout === rollout.key) lines.append(timeline(rollout, trace, video));
    else if (!trace) lines.append(element("p", { class: "note" }, "No stages or rules were recorded of this rollout."));
  });
  if (video) video.play().catch(() => {});
}

let dialogSpeeds = null;

function turnRollout(by) {
  const next = order[order.indexOf(state.rollout) + by];
  if (next !== undefined) show({ rollout: next });
}

function closeRollout(changes = {}) {
  show({ rollout: "", ...changes }, { push: true });
}

function dialogKeys(event) {
  if (event.target.closest("input, textarea, select")) return;
  const video = byId("rollout-body").querySelector("video");
  const actions = {
    j: () => turnRollout(1), k: () => turnRollout(-1),
    "<": () => dialogSpeeds?.step(-1), ">": () => dialogSpeeds?.step(1),
    p: () => video && (video.paused ? video.play() : video.pause()),
    ",": () => video && (video.currentTime = Math.max(0, video.currentTime - 1)), ".": () => video && (video.currentTime += 1),
  };
  const action = event.ctrlKey || event.metaKey || event.altKey ? null : actions[event.key] || labelKey(event.key);
  if (!action) return;
  event.preventDefault();
  action();
}

function setUpRollout() {
  const dialog = byId("rollout");
  byId("rollout-close").addEventListener("click", () => closeRollout());
  byId("rollout-back").addEventListener("click", () => turnRollout(-1));
  byId("rollout-on").addEventListener("click", () => turnRollout(1));
  dialog.addEventListener("keydown", dialogKeys);
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    closeRollout();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) closeRollout();
  });
  let shown = "";
  const update = () => {
    const rollout = BY_KEY.get(state.rollout);
    const wanted = rollout ? rollout.key : "";
    if (wanted === shown) return;
    shown = wanted;
    if (rollout) {
      fillDialog(rollout);
      if (!dialog.open) dialog.showModal();
    } else {
      byId("rollout-body").replaceChildren();
      dialog.close();
      if (opener?.isConnected) opener.focus();
    }
  };
  listeners.push(update);
  update();
}
