// Files that are too large are refused here, in words, before anything is sent; the
// server refuses them too, but Gradio says no more of that than "Error".
const LARGEST = { file: $FILE, together: $TOGETHER };
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

function problem(files) {
  const large = files.find((file) => file.size > LARGEST.file);
  const together = files.reduce((sum, file) => sum + file.size, 0);
  if (large)
    return `${large.name} has ${megabytes(large.size)}, and at most ${megabytes(LARGEST.file)} are taken here: choose a smaller file.`;
  if (together > LARGEST.together)
    return `These files have ${megabytes(together)}, and at most ${megabytes(LARGEST.together)} are taken at once: choose fewer.`;
  return "";
}

function check(event) {
  if (!event.target.closest?.("#images")) return;
  const files = [...(event.dataTransfer?.files ?? event.target.files ?? [])];
  const sentence = problem(files);
  element.replaceChildren();
  if (!sentence) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === "change") event.target.value = "";
  const note = document.createElement("div");
  note.className = "note problem";
  note.setAttribute("role", "alert");
  note.textContent = sentence;
  element.append(note);
}

document.addEventListener("change", check, true);
document.addEventListener("drop", check, true);
