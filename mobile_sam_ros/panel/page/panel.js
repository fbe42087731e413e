// The page: draws the pictures that it asks for, and sends what is clicked on.
"use strict";

const $ = (id) => document.getElementById(id);
const canvas = $("picture");
const context = canvas.getContext("2d");
const DRAG_PIXELS = 8; // of the screen, from which on a click is a box
const GRAPH_REPORTS = 120;
const PROBLEM_SECONDS = 8;
const REFUSAL_SECONDS = 3;

let socket;
let picture = null; // what is shown: {header, image, painted}
let selected = null; // id of an object, whose clicks correct it
let paused = false;
let stepping = false; // waits for one picture, paused
let asked = false; // for a picture that has not come yet
let again = false; // connected: the panel may be another one, which counts from elsewhere
let drag = null; // {from, to} in pixels of the image
const reports = [];

// --- The connection ---------------------------------------------------------------------------

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    asked = false;
    again = true;
    if (!paused || stepping) askNext();
  };
  socket.onmessage = (event) => {
    if (typeof event.data === "string") takeReport(JSON.parse(event.data));
    else takePicture(event.data);
  };
  socket.onclose = async () => {
    showStatus(false, "No connection to the robot; trying again…");
    const why = await refusal();
    if (why) showStatus(false, why);
    else setTimeout(connect, 1000);
  };
}

// Why the panel does not let this page in, if it says so: a WebSocket's failure tells nothing.
async function refusal() {
  try {
    const answer = await fetch("/", {signal: AbortSignal.timeout(REFUSAL_SECONDS * 1000)});
    return answer.status === 403 ? await answer.text() : "";
  } catch {
    return "";
  }
}

function send(request) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
  else if (request.do !== "next") showProblem("Not done: there is no connection to the robot.");
}

function askNext() {
  if (asked) return;
  asked = true;
  send({do: "next", after: picture && !again ? picture.header.number : 0});
}

// Gives back a picture's memory, for which the browser would let many gather.
function release({image, painted}) {
  image.close();
  if (painted) painted.close();
}

async function takePicture(data) {
  const length = new DataView(data).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const begin = 4 + length;
  const part = (from, size, type) =>
    createImageBitmap(new Blob([new Uint8Array(data, from, size)], {type}));
  const [image, painted] = await Promise.all([
    part(begin, header.jpeg, "image/jpeg"),
    header.png ? part(begin + header.jpeg, header.png, "image/png") : null,
  ]);
  if (header.still) setPaused(true);
  else asked = false;
  // One of the stream that was on its way when it was paused is not shown.
  const wanted = header.still || !paused || stepping;
  if (wanted && (!picture || again || header.number > picture.header.number)) {
    stepping = again = false;
    if (picture) release(picture);
    picture = {header, image, painted};
    draw();
    listObjects();
  } else {
    release({image, painted});
  }
  if (!paused) askNext();
}

// --- Reports: rates, latency, what the node says ----------------------------------------------

function takeReport(report) {
  if (report.problem !== undefined) return showProblem(report.problem);
  if (report.new !== undefined) return select(report.new);
  reports.push(report);
  if (reports.length > GRAPH_REPORTS) reports.shift();
  showStatus(report.is_well, report.status + (report.viewers > 1 ? ` · ${report.viewers} viewers` : ""));
  $("rate").textContent = `${report.masks_hz.toFixed(1)} masks of ${report.images_hz.toFixed(1)} images a second`;
  $("latency").textContent = report.latency_ms === null ? "no masks" : `${report.latency_ms.toFixed(0)} ms from image to mask`;
  graph($("rates"), [["images_hz", "#5b6675"], ["masks_hz", "#4da3ff"]]);
  graph($("latencies"), [["latency_ms", "#f0b04a"]]);
  if (!picture && report.images_hz === 0) $("hint").textContent = `Waiting for images… ${report.status}`;
}

function showStatus(isWell, text) {
  $("status").className = isWell ? "well" : "";
  $("status").lastElementChild.textContent = text;
}

let problemTimer;
function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
  clearTimeout(problemTimer);
  problemTimer = setTimeout(() => { $("problem").hidden = true; }, PROBLEM_SECONDS * 1000);
}

function graph(figure, series) {
  const ratio = window.devicePixelRatio || 1;
  const width = figure.clientWidth * ratio, height = figure.clientHeight * ratio;
  figure.width = width;
  figure.height = height;
  const pen = figure.getContext("2d");
  const most = Math.max(1, ...reports.flatMap((r) => series.map(([key]) => r[key] || 0))) * 1.1;
  pen.strokeStyle = "#333b47";
  pen.strokeRect(0, 0, width, height);
  pen.lineWidth = 1.5 * ratio;
  for (const [key, colour] of series) {
    pen.strokeStyle = colour;
    pen.beginPath();
    let drawing = false;
    reports.forEach((report, i) => {
      if (report[key] === null) { drawing = false; return; }
      const x = width * (i + GRAPH_REPORTS - reports.length) / (GRAPH_REPORTS - 1);
      const y = height * (1 - report[key] / most);
      if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y);
      drawing = true;
    });
    pen.stroke();
  }
  pen.fillStyle = "#98a3b3";
  pen.font = `${10 * ratio}px system-ui, sans-serif`;
  pen.fillText(most.toFixed(most < 10 ? 1 : 0), 4 * ratio, 11 * ratio);
}

// --- The picture ------------------------------------------------------------------------------

function draw() {
  if (!picture) return;
  const {header, image, painted} = picture;
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  $("hint").textContent = "";
  fit();
  const scale = image.width / header.width;
  context.drawImage(image, 0, 0);
  if (painted) {
    context.globalAlpha = $("opacity").value / 100;
    context.drawImage(painted, 0, 0);
    context.globalAlpha = 1;
  }
  const line = Math.max(1, image.width / 400);
  const frame = (x, y, width, height, colour) => {
    context.lineWidth = line;
    context.strokeStyle = colour;
    context.strokeRect(x * scale, y * scale, width * scale, height * scale);
  };
  for (const object of header.objects) {
    const [x, y, width, height] = object.box;
    if (!width) continue;
    if (object.id === selected) frame(x, y, width, height, object.colour);
    tag(object.name || object.id, x * scale, y * scale, object.colour);
  }
  if (drag && isBox()) {
    const [x0, y0, x1, y1] = dragBox();
    frame(x0, y0, x1 - x0, y1 - y0, "#fff");
  }
}

// Writes a name above a place, within the picture.
function tag(text, x, y, colour) {
  const size = Math.max(11, canvas.width / 50), margin = size / 4;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 2 * margin, height = size + 2 * margin;
  x = Math.max(0, Math.min(x, canvas.width - width));
  y = Math.max(height, y);
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  context.fillStyle = colour;
  context.fillRect(x, y - height, width, height);
  context.fillStyle = 0.3 * red + 0.59 * green + 0.11 * blue > 120 ? "#000" : "#fff";
  context.fillText(text, x + margin, y - margin - size * 0.15);
}

// Makes the picture as large as there is room for.
function fit() {
  const view = $("view"), ratio = canvas.height / canvas.width;
  const width = Math.min(view.clientWidth, view.clientHeight / ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${width * ratio}px`;
}

// --- Clicks -----------------------------------------------------------------------------------

function place(event) {
  const bounds = canvas.getBoundingClientRect();
  const {width, height} = picture.header;
  const inside = (value, most) => Math.min(Math.max(value, 0), most - 0.01);
  return [
    inside((event.clientX - bounds.left) / bounds.width * width, width),
    inside((event.clientY - bounds.top) / bounds.height * height, height),
  ];
}

const tool = () => document.querySelector("input[name=tool]:checked").value;

function isBox() {
  const screen = canvas.getBoundingClientRect().width / picture.header.width;
  const [from, to] = [drag.from, drag.to];
  return Math.hypot(to[0] - from[0], to[1] - from[1]) * screen > DRAG_PIXELS;
}

function dragBox() {
  const [from, to] = [drag.from, drag.to];
  return [Math.min(from[0], to[0]), Math.min(from[1], to[1]),
          Math.max(from[0], to[0]), Math.max(from[1], to[1])];
}

canvas.addEventListener("pointerdown", (event) => {
  if (!picture || !event.isPrimary || event.button === 1) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  canvas.focus({preventScroll: true});
  // The picture that is shown now: that the click is about, whatever comes meanwhile.
  drag = {from: place(event), to: place(event), number: picture.header.number,
          what: event.shiftKey || event.button === 2 ? "background"
            : event.ctrlKey || event.metaKey ? "more" : tool()};
});

canvas.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.to = place(event);
  draw();
});

canvas.addEventListener("pointerup", (event) => {
  if (!drag) return;
  drag.to = place(event);
  const request = {do: "show", number: drag.number, id: "", mode: $("mode").value, still: paused};
  const what = drag.what;
  if (isBox()) {
    request.box = dragBox();
  } else {
    request.points = [[...drag.to, what !== "background"]];
    if (what !== "new") request.id = selected || "";
  }
  drag = null;
  draw();
  if (!request.box && what !== "new" && !selected)
    return showProblem("Select an object first, in the list: of which one is this a correction?");
  send(request);
});

canvas.addEventListener("pointercancel", () => { drag = null; draw(); });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

// --- Objects ----------------------------------------------------------------------------------

function select(id) {
  selected = id;
  draw();
  listObjects();
}

function detail(object) {
  const parts = [];
  if (object.state) parts.push(object.state);
  parts.push(`mask ${object.predicted_iou.toFixed(2)}`);
  if (object.score < 1) parts.push(`score ${object.score.toFixed(2)}`);
  if (object.state) parts.push(`sure ${object.confidence.toFixed(2)}`, `${object.age} images`);
  const [x, y, width, height] = object.box;
  parts.push(width ? `${width}×${height} at ${x}, ${y}` : "not seen");
  return parts.join(" · ");
}

function makeItem(id) {
  const item = document.createElement("li");
  item.dataset.id = id;
  item.setAttribute("role", "option");
  const [colour, name, small] = ["i", "b", "small"].map((tag) => document.createElement(tag));
  const buttons = document.createElement("span");
  for (const [text, title, act] of [
    ["◎", "Follow", () => follow(id)],
    ["✎", "Rename", () => rename(item)],
    ["✕", "Remove", () => remove(id)],
  ]) {
    const button = document.createElement("button");
    button.textContent = text;
    button.title = title;
    button.addEventListener("click", (event) => { event.stopPropagation(); act(); });
    buttons.append(button);
  }
  item.append(colour, name, buttons, small);
  item.addEventListener("click", () => select(selected === id ? null : id));
  item.addEventListener("dblclick", () => rename(item));
  return item;
}

// Changes what there is, rather than making it anew: with every image, nobody could click on it.
function listObjects() {
  const objects = picture ? picture.header.objects : [];
  const list = $("objects");
  const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
  objects.forEach((object, i) => {
    const item = items.get(object.id) || makeItem(object.id);
    items.delete(object.id);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] || null);
    item.setAttribute("aria-selected", String(object.id === selected));
    item.children[0].style.background = object.colour;
    const name = object.name ? `${object.name} (${object.id})` : object.id;
    if (item.children[1].tagName === "B") item.children[1].textContent = name;
    item.children[2].firstElementChild.hidden = object.state !== "";
    item.children[3].textContent = detail(object);
    item.children[3].className = object.state;
  });
  for (const item of items.values()) item.remove();
  $("count").textContent = objects.length || "";
}

function rename(item) {
  if (item.children[1].tagName !== "B") return;
  const before = item.children[1];
  const input = document.createElement("input");
  input.maxLength = 200;
  const object = picture.header.objects.find((o) => o.id === item.dataset.id);
  input.value = object ? object.name : "";
  let isDone = false;
  const done = (name) => {
    if (isDone) return;
    isDone = true;
    input.replaceWith(before);
    if (name !== null) send({do: "rename", id: item.dataset.id, name});
  };
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") done(input.value.trim());
    if (event.key === "Escape") done(null);
  });
  input.addEventListener("blur", () => done(input.value.trim()));
  input.addEventListener("click", (event) => event.stopPropagation());
  before.replaceWith(input);
  input.focus();
  input.select();
}

function follow(id) {
  send({do: "show", number: picture.header.number, id, mode: "follow", still: false});
  setPaused(false);
}

function remove(id) {
  send({do: "remove", id});
  if (selected === id) select(null);
  setPaused(false);
}

// --- Tools ------------------------------------------------------------------------------------

function setPaused(value) {
  paused = value;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Resume" : "Pause";
  if (!paused) askNext();
}

$("pause").addEventListener("click", () => setPaused(!paused));
$("step").addEventListener("click", () => { setPaused(true); stepping = true; askNext(); });
$("everything").addEventListener("click", () => {
  if (!picture) return;
  setPaused(true);
  send({do: "everything", number: picture.header.number});
});
$("clear").addEventListener("click", () => { select(null); send({do: "clear"}); setPaused(false); });
$("opacity").addEventListener("input", draw);
window.addEventListener("resize", draw);

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=text], select, input:not([type])")) return;
  const act = {
    " ": () => setPaused(!paused),
    ".": () => $("step").click(),
    "Escape": () => select(null),
    "Delete": () => selected && remove(selected),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

connect();
