// A slide on a canvas: tiles of a pyramid that are loaded as they come into view, and patch scores above them.

const NEGATIVE = "20, 92, 196"; // as in the heat maps of the report
const POSITIVE = "232, 97, 0";
const MAX_TILES = 600; // kept in memory
const MAX_SCREEN_SCALE = 8; // screen pixels per level-0 pixel
const MAX_GAP_PX = 5; // movement of a pointer that still counts as a click

export class SlideViewer extends EventTarget {
  constructor(stage) {
    super();
    this.stage = stage;
    this.ground = stage.appendChild(document.createElement("canvas"));
    this.layer = stage.appendChild(document.createElement("canvas"));
    this.slide = null;
    this.view = { x: 0, y: 0, scale: 1 }; // level-0 point in the centre; screen pixels per level-0 pixel
    this.overlay = { patches: null, name: "", opacity: 0.8, showPoints: false };
    this.selected = -1;
    this.tiles = new Map();
    this.pointers = new Map();
    this.frame = 0;
    new ResizeObserver(() => this.resize()).observe(stage);
    this.listen();
  }

  // slide: an answer of /api/slides/{slide_id}, or null
  show(slide) {
    this.slide = slide;
    this.tiles.clear();
    this.overlay = { ...this.overlay, patches: null };
    this.selected = -1;
    this.failed = false;
    this.thumbnail = null;
    if (slide?.has_thumbnail) {
      this.thumbnail = new Image();
      this.thumbnail.onload = () => this.redraw();
      this.thumbnail.src = `${this.base}/thumbnail.jpg`;
    }
    this.fit();
  }

  setOverlay(change) {
    if ("patches" in change) this.selected = -1;
    this.overlay = { ...this.overlay, ...change };
    this.redraw();
  }

  get base() {
    return `/api/slides/${encodeURIComponent(this.slide.slide_id)}`;
  }

  get fitScale() {
    return Math.min(this.width / this.slide.width_px, this.height / this.slide.height_px) * 0.96;
  }

  fit() {
    if (this.slide && this.width > 0) {
      this.view = { x: this.slide.width_px / 2, y: this.slide.height_px / 2, scale: this.fitScale };
    }
    this.redraw();
  }

  // anchor: the screen point that stays in place
  zoomBy(factor, anchor = { x: this.width / 2, y: this.height / 2 }) {
    if (!this.slide) return;
    const before = this.toSlide(anchor);
    const scale = Math.min(MAX_SCREEN_SCALE, Math.max(this.fitScale / 4, this.view.scale * factor));
    this.view.scale = scale;
    this.moveTo(before.x - (anchor.x - this.width / 2) / scale, before.y - (anchor.y - this.height / 2) / scale);
  }

  moveTo(x, y) {
    if (!this.slide) return;
    this.view.x = Math.min(this.slide.width_px, Math.max(0, x));
    this.view.y = Math.min(this.slide.height_px, Math.max(0, y));
    this.redraw();
  }

  select(index, { centre = false } = {}) {
    const patches = this.overlay.patches;
    this.selected = index;
    if (centre && patches && index >= 0) {
      const half = patches.patch_size_px / 2;
      this.moveTo(patches.x[index] + half, patches.y[index] + half);
    }
    this.redraw();
    this.dispatchEvent(new CustomEvent("patch", { detail: index }));
  }

  patchAt(point) {
    const patches = this.overlay.patches;
    if (!patches) return -1;
    const size = patches.patch_size_px;
    return patches.x.findIndex(
      (x, i) => x <= point.x && point.x < x + size && patches.y[i] <= point.y && point.y < patches.y[i] + size,
    );
  }

  toSlide(point) {
    const { x, y, scale } = this.view;
    return { x: x + (point.x - this.width / 2) / scale, y: y + (point.y - this.height / 2) / scale };
  }

  toScreen(x, y) {
    const { scale } = this.view;
    return { x: (x - this.view.x) * scale + this.width / 2, y: (y - this.view.y) * scale + this.height / 2 };
  }

  resize() {
    const first = !this.width;
    this.ratio = window.devicePixelRatio || 1;
    this.width = this.stage.clientWidth;
    this.height = this.stage.clientHeight;
    for (const canvas of [this.ground, this.layer]) {
      canvas.width = Math.round(this.width * this.ratio);
      canvas.height = Math.round(this.height * this.ratio);
    }
    if (first) this.fit();
    this.redraw();
  }

  redraw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const ground = this.ground.getContext("2d");
    const layer = this.layer.getContext("2d");
    for (const context of [ground, layer]) {
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, this.width, this.height);
    }
    if (!this.slide || !this.width) return;
    this.drawGround(ground);
    const coloured = Boolean(this.overlay.patches && this.overlay.name);
    this.ground.classList.toggle("grey", coloured); // so that colour means score only
    if (coloured) this.drawScores(layer);
    if (this.overlay.patches && this.overlay.showPoints) this.drawPoints(layer);
    if (this.overlay.patches && this.selected >= 0) this.drawSelection(layer);
    this.drawScaleBar(layer);
    if (this.stage.matches(":focus-visible")) this.drawCross(layer);
    Object.assign(this.stage.dataset, { scale: this.view.scale, overlay: this.overlay.name });
  }

  // --- tiles

  drawGround(context) {
    const { width_px: width, height_px: height } = this.slide;
    this.drawPicture(context, this.thumbnail, null, 0, 0, width, height);
    if (!this.slide.available) return;
    const top = this.slide.levels - 1;
    const level = Math.min(top, Math.max(0, top + Math.ceil(Math.log2(this.view.scale * this.ratio) - 0.25)));
    const span = this.slide.tile_px * 2 ** (top - level); // of a tile, in level-0 pixels
    const start = this.toSlide({ x: 0, y: 0 });
    const stop = this.toSlide({ x: this.width, y: this.height });
    const last = { x: Math.ceil(width / span) - 1, y: Math.ceil(height / span) - 1 };
    for (let y = Math.max(0, Math.floor(start.y / span)); y <= Math.min(last.y, Math.floor(stop.y / span)); y++) {
      for (let x = Math.max(0, Math.floor(start.x / span)); x <= Math.min(last.x, Math.floor(stop.x / span)); x++) {
        this.drawTile(context, level, x, y, span);
      }
    }
    this.forgetTiles();
  }

  // Draws a tile, or until it has arrived the part of a coarser one that covers its place.
  drawTile(context, level, x, y, span) {
    for (let up = 0; up <= level; up++) {
      const tile = this.tile(level - up, x >> up, y >> up, up === 0);
      if (!tile?.complete || !tile.naturalWidth) continue;
      const part = this.slide.tile_px / 2 ** up;
      const from = { x: (x - ((x >> up) << up)) * part, y: (y - ((y >> up) << up)) * part };
      const crop = [from.x, from.y, Math.min(part, tile.naturalWidth - from.x), Math.min(part, tile.naturalHeight - from.y)];
      const right = Math.min((x + 1) * span, this.slide.width_px);
      const bottom = Math.min((y + 1) * span, this.slide.height_px);
      if (crop[2] > 0 && crop[3] > 0) this.drawPicture(context, tile, crop, x * span, y * span, right, bottom);
      return;
    }
  }

  tile(level, x, y, load) {
    const key = `${level}/${x}_${y}`;
    const known = this.tiles.get(key);
    if (known || !load) return known;
    const tile = new Image();
    const slide = this.slide;
    tile.onload = () => this.slide === slide && this.redraw();
    tile.onerror = () => {
      if (this.failed || this.slide !== slide) return;
      this.failed = true;
      this.dispatchEvent(new CustomEvent("failure", { detail: tile.src }));
    };
    tile.src = `${this.base}/${key}.jpg`;
    this.tiles.set(key, tile);
    return tile;
  }

  forgetTiles() {
    for (const key of this.tiles.keys()) {
      if (this.tiles.size <= MAX_TILES) return;
      this.tiles.delete(key); // the oldest first
    }
  }

  // Edges are rounded to screen pixels, not sizes: neighbours then share an edge, without gaps.
  drawPicture(context, picture, crop, left, top, right, bottom) {
    if (!picture?.complete || !picture.naturalWidth) return;
    const snapped = (value) => Math.round(value * this.ratio) / this.ratio;
    const start = this.toScreen(left, top);
    const stop = this.toScreen(right, bottom);
    const x = snapped(start.x);
    const y = snapped(start.y);
    const [sx, sy, sw, sh] = crop ?? [0, 0, picture.naturalWidth, picture.naturalHeight];
    context.drawImage(picture, sx, sy, sw, sh, x, y, snapped(stop.x) - x, snapped(stop.y) - y);
  }

  // --- what lies above

  drawScores(context) {
    const { patches, name, opacity } = this.overlay;
    const size = patches.patch_size_px * this.view.scale;
    patches.scores[name].forEach((score, i) => {
      const { x, y } = this.toScreen(patches.x[i], patches.y[i]);
      if (x > this.width || y > this.height || x + size < 0 || y + size < 0) return;
      const strength = opacity * Math.min(1, Math.abs(score) / patches.limits[name]);
      context.fillStyle = `rgba(${score < 0 ? NEGATIVE : POSITIVE}, ${strength})`;
      const left = Math.round(x);
      const top = Math.round(y);
      context.fillRect(left, top, Math.round(x + size) - left, Math.round(y + size) - top);
    });
  }

  drawPoints(context) {
    const { patches, name } = this.overlay;
    const subspaces = name in patches.points ? [name] : Object.keys(patches.points);
    context.lineWidth = 1.5;
    for (const subspace of subspaces) {
      for (const [px, py] of patches.points[subspace]) {
        const { x, y } = this.toScreen(px, py);
        context.beginPath();
        context.arc(x, y, 3.5, 0, 2 * Math.PI);
        context.fillStyle = "rgba(255, 255, 255, 0.75)";
        context.strokeStyle = "#111";
        context.fill();
        context.stroke();
      }
    }
  }

  drawSelection(context) {
    const { patches } = this.overlay;
    const { x, y } = this.toScreen(patches.x[this.selected], patches.y[this.selected]);
    const size = patches.patch_size_px * this.view.scale;
    for (const [colour, width] of [["#fff", 5], ["#111", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(x, y, size, size);
    }
  }

  drawScaleBar(context) {
    const perPixel = this.slide.mpp / this.view.scale; // µm per screen pixel
    const power = 10 ** Math.floor(Math.log10(perPixel * 150));
    const length = [5, 2, 1].map((n) => n * power).find((um) => um / perPixel <= 150) ?? power;
    const text = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
    const [left, top] = [14, this.height - 22];
    context.fillStyle = "rgba(255, 255, 255, 0.85)";
    context.fillRect(left - 6, top - 20, Math.max(length / perPixel, 60) + 12, 32);
    context.fillStyle = "#111";
    context.fillRect(left, top, length / perPixel, 4);
    context.font = "12px system-ui, sans-serif";
    context.fillText(text, left, top - 6);
  }

  drawCross(context) {
    const [x, y] = [this.width / 2, this.height / 2];
    context.strokeStyle = "#111";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x - 8, y);
    context.lineTo(x + 8, y);
    context.moveTo(x, y - 8);
    context.lineTo(x, y + 8);
    context.stroke();
  }

  // --- mouse, touch and keyboard

  listen() {
    const stage = this.stage;
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    stage.addEventListener("pointerup", (event) => this.release(event));
    stage.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(60, Math.abs(event.deltaY)) / 200), this.place(event));
    }, { passive: false });
    stage.addEventListener("keydown", (event) => this.pressKey(event));
    for (const name of ["focus", "blur"]) stage.addEventListener(name, () => this.redraw());
  }

  place(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  press(event) {
    if (event.button > 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.travelled = this.pointers.size > 1 ? Infinity : 0;
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.slide) return;
    const now = this.place(event);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
    this.pointers.set(event.pointerId, now);
    if (other) {
      this.zoomBy(distance(now, other) / Math.max(1, distance(before, other)), other);
      return;
    }
    this.travelled += distance(now, before);
    const { x, y, scale } = this.view;
    this.moveTo(x - (now.x - before.x) / scale, y - (now.y - before.y) / scale);
  }

  release(event) {
    const known = this.pointers.delete(event.pointerId);
    if (known && this.slide && this.travelled <= MAX_GAP_PX) this.select(this.patchAt(this.toSlide(this.place(event))));
  }

  pressKey(event) {
    if (!this.slide || event.ctrlKey || event.metaKey || event.altKey) return;
    const { x, y, scale } = this.view;
    const step = { x: (0.15 * this.width) / scale, y: (0.15 * this.height) / scale };
    const actions = {
      ArrowLeft: () => this.moveTo(x - step.x, y),
      ArrowRight: () => this.moveTo(x + step.x, y),
      ArrowUp: () => this.moveTo(x, y - step.y),
      ArrowDown: () => this.moveTo(x, y + step.y),
      "+": () => this.zoomBy(1.5),
      "=": () => this.zoomBy(1.5),
      "-": () => this.zoomBy(1 / 1.5),
      0: () => this.fit(),
      Enter: () => this.select(this.patchAt(this.view)),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }
}
