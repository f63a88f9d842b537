"""Looks through the book that mdBook has made: every link in it, and every picture, leads to a page, and to a place that the page has."""

import html
import os
import re
import sys

root = sys.argv[1]
# They repeat what the pages have.
REPEATED = {"print.html", "toc.html", "404.html"}

places, links = {}, []
for folder, _, files in os.walk(root):
    for name in files:
        if name.endswith(".html") and name not in REPEATED:
            page = os.path.normpath(os.path.join(folder, name))
            with open(page, encoding="utf-8") as file:
                text = file.read()
            places[page] = {html.unescape(place) for place in re.findall(r'\bid="([^"]+)"', text)}
            main = re.search(r"<main>(.*?)</main>", text, re.DOTALL)
            found = re.findall(r'\b(?:href|src)="([^"]+)"', main.group(1) if main else text)
            links += [(page, html.unescape(link)) for link in found]

wrong = []
for page, link in links:
    if re.match(r"[a-z]+:", link):
        continue
    path, _, place = link.partition("#")
    target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
    if not os.path.exists(target) or (place and place not in places.get(target, ())):
        wrong.append(f"{os.path.relpath(page, root)}: {link} leads nowhere")
if not links:
    wrong.append(f"{root} has no pages")
if wrong:
    sys.exit("\n".join(wrong))
print(f"{len(places)} pages, {len(links)} links")
