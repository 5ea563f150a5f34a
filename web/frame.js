(() => {
  const tell = () => {
    const height = innerWidth && Math.ceil(document.documentElement.getBoundingClientRect().height);
    parent.postMessage({ height }, "*");
  };
  tell();
  new ResizeObserver(tell).observe(document.documentElement);
})();
