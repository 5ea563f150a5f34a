(() => {
  const tell = () => parent.postMessage({ height: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*");
  tell();
  new ResizeObserver(tell).observe(document.documentElement);
})();
