// The order and frame sliders, the play and copy buttons, files that need not be sent, and the way to the answers.
// Everything else is Gradio's.
(() => {
  const SECONDS = 4;
  let timer = null;

  const slider = () => document.getElementById("vp-order");

  function show() {
    const input = slider();
    if (!input) return;
    const share = Number(input.value) / 100;
    for (const picture of document.querySelectorAll(".vp-panels[data-kept]")) {
      const count = Math.ceil(share * Number(picture.dataset.kept));
      if (picture.dataset.shown === String(count)) continue;
      picture.dataset.shown = count;
      for (const cell of picture.querySelectorAll("[data-rank]")) {
        cell.style.display = Number(cell.dataset.rank) < count ? "" : "none";
      }
    }
    const text = share === 1 ? "all that was kept" : `the first ${input.value} %`;
    const shown = document.getElementById("vp-shown");
    if (shown.textContent === text) return; // writing it again would wake the observer below again
    input.setAttribute("aria-valuetext", text);
    shown.textContent = text;
  }

  // All columns show the frame that the slider says; a column of fewer frames shows its last one.
  function scrub() {
    const [input, films] = [document.getElementById("vp-frame"), document.querySelectorAll(".vp-film")];
    if (!input || !films.length) return;
    const most = String(Math.max(...[...films].map((film) => Number(film.dataset.frames))));
    if (input.max !== most) input.max = most;
    for (const film of films) {
      const frame = String(Math.min(Number(input.value), Number(film.dataset.frames)) - 1);
      if (film.dataset.shown === frame) continue;
      film.dataset.shown = frame;
      for (const part of film.querySelectorAll("figure")) part.hidden = part.dataset.frame !== frame;
      for (const bar of film.querySelectorAll(".vp-bars i")) bar.classList.toggle("vp-now", bar.dataset.frame === frame);
    }
    const text = `${input.value} of ${most}`;
    const shown = document.getElementById("vp-moment");
    if (shown.textContent === text) return;
    input.setAttribute("aria-valuetext", text);
    shown.textContent = text;
  }

  function stop() {
    if (timer) cancelAnimationFrame(timer);
    timer = null;
    const button = document.getElementById("vp-play");
    if (button) button.textContent = "Play";
  }

  function play() {
    const input = slider();
    const from = input.value === "100" ? 0 : Number(input.value);
    let begun = null;
    document.getElementById("vp-play").textContent = "Pause";
    const step = (now) => {
      begun = begun ?? now;
      const value = Math.min(100, from + ((now - begun) / (SECONDS * 1000)) * 100);
      input.value = Math.round(value);
      show();
      if (value < 100) timer = requestAnimationFrame(step);
      else stop();
    };
    timer = requestAnimationFrame(step);
  }

  async function copy(button) {
    const text = button.parentElement.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }

  // Files that the server would refuse anyway: Gradio shows no reason for those.
  function refuse(event, files) {
    const [file, note] = [files?.[0], document.getElementById("vp-unsent")];
    if (!file || !note) return;
    const most = Number(note.dataset.megabytes);
    let why = "";
    if (!/^(image|video)\//.test(file.type) && !/\.(mkv|m4v|avi)$/i.test(file.name))
      why = `'${file.name}' is neither an image nor a video`;
    else if (file.size > most * 1e6) why = `'${file.name}' has ${Math.round(file.size / 1e6)} MB; at most ${most} are read`;
    note.textContent = why;
    note.hidden = !why;
    if (!why) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.target.type === "file") event.target.value = "";
  }

  const inUpload = (event) => event.target.closest?.("#vp-upload");
  document.addEventListener("change", (event) => inUpload(event) && refuse(event, event.target.files), true);
  document.addEventListener("drop", (event) => inUpload(event) && refuse(event, event.dataTransfer?.files), true);
  document.addEventListener("input", (event) => {
    if (event.target.id === "vp-frame") scrub();
    if (event.target.id !== "vp-order") return;
    stop();
    show();
  });
  document.addEventListener("click", (event) => {
    if (event.target.id === "vp-play") timer ? stop() : play();
    else if (event.target.classList?.contains("vp-copy")) copy(event.target);
  });
  // Gradio names a group of radio buttons for the eye only.
  function nameGroups() {
    for (const group of document.querySelectorAll("#vp-thumbs, #vp-samples")) {
      const name = group.querySelector("[data-testid=block-info]")?.textContent.trim();
      if (name && group.getAttribute("aria-label") !== name) group.setAttribute("aria-label", name);
    }
  }

  // Where the answers stand below the controls, whoever asks is taken to them as soon as the first of them begins.
  let asked = false;
  function follow() {
    const busy = asked && document.querySelector(".vp-card[aria-busy=true]");
    if (!busy) return;
    asked = false;
    if (busy.getBoundingClientRect().top < window.innerHeight * 0.6) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.getElementById("vp-status").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
  document.addEventListener("click", (event) => { if (event.target.closest?.("#vp-ask")) asked = true; }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.closest?.("#vp-question")) asked = true;
  }, true);

  // A picture that arrives while the slider is not at its end is shown as far as the others.
  new MutationObserver(() => (show(), scrub(), nameGroups(), follow())).observe(document.documentElement, { childList: true, subtree: true });
})();
