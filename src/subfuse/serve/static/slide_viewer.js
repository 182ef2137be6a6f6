// A slide in Leaflet: tiles of its pyramid above its thumbnail, and patch scores above both.
// At zoom 0 a level-0 pixel is a screen pixel; the pixel (x, y) has the latitude -y and the longitude x.

import * as L from "/leaflet/leaflet-src.esm.js";

const NEGATIVE = "rgb(20, 92, 196)"; // as in the heat maps of the report
const POSITIVE = "rgb(232, 97, 0)";
const MAX_ZOOM = 3; // 8 screen pixels per level-0 pixel
const ZOOMS_OUT = 2; // from the fitted slide
const STILL = matchMedia("(prefers-reduced-motion: reduce)").matches;
const SHARPER = L.Browser.retina ? 1 : 0; // levels to add where a screen pixel has four dots

const box = (x, y, width, height) => L.latLngBounds([-y - height, x], [-y, x + width]);

const Pyramid = L.GridLayer.extend({
  createTile({ x, y, z }, done) {
    const { base, top, tilePx } = this.options;
    const tile = new Image();
    tile.alt = "";
    tile.onload = () => {
      const size = this.getTileSize().x / tilePx; // the last tiles of a row and of a column are smaller
      Object.assign(tile.style, { width: `${size * tile.naturalWidth}px`, height: `${size * tile.naturalHeight}px` });
      done(null, tile);
    };
    tile.onerror = () => done(new Error(tile.src), tile);
    tile.src = `${base}/${top + z + SHARPER}/${x}_${y}.jpg`;
    return tile;
  },
});

const ScaleBar = L.Control.Scale.extend({
  options: { imperial: false, maxWidth: 150 },
  _updateMetric(maxPx) {
    const max = maxPx * this.options.mpp; // µm
    const length = this._getRoundNum(max);
    this._updateScale(this._mScale, length < 1000 ? `${length} µm` : `${length / 1000} mm`, length / max);
  },
});

export class SlideViewer extends EventTarget {
  constructor(stage) {
    super();
    this.stage = stage;
    this.slide = null;
    this.overlay = { patches: null, name: "", opacity: 0.8, showPoints: false };
    this.selected = -1;
    this.map = L.map(stage, {
      crs: L.CRS.Simple, attributionControl: false, zoomControl: false, preferCanvas: true, maxZoom: MAX_ZOOM,
      zoomSnap: 0.25, zoomDelta: 0.5, wheelPxPerZoomLevel: 120,
      zoomAnimation: !STILL, fadeAnimation: !STILL, inertia: !STILL,
    }).setView([0, 0], 0);
    this.map.createPane("thumbnail").style.zIndex = 150; // below the tiles
    this.map.createPane("marks").style.zIndex = 450; // above the scores
    [this.ground, this.scores, this.points, this.selection] = Array.from({ length: 4 }, () => L.layerGroup().addTo(this.map));
    this.map.on("click", ({ latlng }) => this.select(this.patchAt(latlng)));
    this.map.on("zoomend", () => this.tellScale());
    stage.addEventListener("keydown", (event) => this.pressKey(event));
    new ResizeObserver(() => this.map.invalidateSize({ animate: false })).observe(stage);
  }

  // slide: an answer of /api/slides/{slide_id}, or null
  show(slide) {
    this.slide = slide;
    this.ground.clearLayers();
    this.bar?.remove();
    this.setOverlay({ patches: null });
    if (!slide) return;
    const bounds = box(0, 0, slide.width_px, slide.height_px);
    const base = `/api/slides/${encodeURIComponent(slide.slide_id)}`;
    this.map.setMaxBounds(bounds.pad(0.5));
    this.fit();
    if (slide.picture !== "none") L.imageOverlay(`${base}/thumbnail.jpg`, bounds, { pane: "thumbnail" }).addTo(this.ground);
    if (slide.available) this.pyramid(base, bounds).addTo(this.ground);
    this.bar = new ScaleBar({ mpp: slide.mpp }).addTo(this.map);
  }

  pyramid(base, bounds) {
    const { levels, tile_px: tilePx } = this.slide;
    const layer = new Pyramid({
      base, tilePx, bounds, top: levels - 1, tileSize: tilePx / 2 ** SHARPER,
      minZoom: -levels, maxNativeZoom: -SHARPER, noWrap: true,
    });
    layer.on("tileunload", ({ tile }) => tile.removeAttribute("src")); // nobody waits for it any more
    return layer.once("tileerror", ({ tile }) => this.dispatchEvent(new CustomEvent("failure", { detail: tile.src })));
  }

  fit() {
    if (!this.slide) return;
    const { levels, width_px: width, height_px: height } = this.slide;
    this.map.invalidateSize({ animate: false }); // the stage may have been unhidden since the last frame
    this.map.setMinZoom(-levels).fitBounds(box(0, 0, width, height), { animate: false });
    this.map.setMinZoom(this.map.getZoom() - ZOOMS_OUT);
    this.tellScale();
  }

  zoomIn() {
    this.map.zoomIn();
  }

  zoomOut() {
    this.map.zoomOut();
  }

  tellScale() {
    this.stage.dataset.scale = 2 ** this.map.getZoom(); // screen pixels per level-0 pixel
  }

  // --- what lies above the slide

  setOverlay(change) {
    const before = this.overlay;
    const { patches, name, opacity, showPoints } = (this.overlay = { ...before, ...change });
    const coloured = Boolean(patches && name);
    this.map.getPane("overlayPane").style.opacity = opacity;
    this.stage.classList.toggle("grey", coloured); // so that colour means score only
    this.stage.dataset.overlay = name;
    if (before.patches !== patches || before.name !== name) {
      this.scores.clearLayers();
      if (coloured) this.drawScores();
    }
    this.points.clearLayers();
    if (patches && showPoints) this.drawPoints();
    if (before.patches !== patches) this.mark(-1);
  }

  drawScores() {
    const { patches, name } = this.overlay;
    patches.scores[name].forEach((score, i) => {
      L.rectangle(this.patch(i), {
        stroke: false, interactive: false, noClip: true, smoothFactor: 0,
        fillColor: score < 0 ? NEGATIVE : POSITIVE, fillOpacity: Math.min(1, Math.abs(score) / patches.limits[name]),
      }).addTo(this.scores);
    });
  }

  drawPoints() {
    const { patches, name } = this.overlay;
    const style = { pane: "marks", radius: 3.5, weight: 1.5, color: "#111", fillColor: "#fff", fillOpacity: 0.75, interactive: false };
    const subspaces = name in patches.points ? [name] : Object.keys(patches.points);
    for (const [x, y] of subspaces.flatMap((subspace) => patches.points[subspace])) {
      L.circleMarker([-y, x], style).addTo(this.points);
    }
  }

  // --- patches

  patch(index) {
    const { x, y, patch_size_px: size } = this.overlay.patches;
    return box(x[index], y[index], size, size);
  }

  patchAt(latlng) {
    return this.overlay.patches ? this.overlay.patches.x.findIndex((_, i) => this.patch(i).contains(latlng)) : -1;
  }

  select(index, { centre = false } = {}) {
    this.mark(index);
    if (centre && index >= 0) this.map.panTo(this.patch(index).getCenter(), { animate: !STILL });
    this.dispatchEvent(new CustomEvent("patch", { detail: index }));
  }

  mark(index) {
    this.selected = index;
    this.selection.clearLayers();
    if (index < 0) return;
    for (const [color, weight] of [["#fff", 5], ["#111", 2]]) {
      L.rectangle(this.patch(index), { pane: "marks", fill: false, interactive: false, color, weight }).addTo(this.selection);
    }
  }

  // Leaflet knows the arrows, + and −.
  pressKey(event) {
    if (!this.slide || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { 0: () => this.fit(), Enter: () => this.select(this.patchAt(this.map.getCenter())) }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
