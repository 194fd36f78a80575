# Doxygen's view of a page: links to what is neither a page nor a picture become plain text, and of a
# heading's address on another page only the page is left. It looks for a picture by the file's name.
{ 
  if ($0 !~ /^    / && !fenced) {
    out = ""
    while (match($0, /\[[^]]*\]\([^)]*\)/)) {
      out = out substr($0, 1, RSTART - 1)
      link = substr($0, RSTART, RLENGTH)
      $0 = substr($0, RSTART + RLENGTH)
      text = target = link
      sub(/\]\(.*/, "", text); sub(/^\[/, "", text)
      sub(/.*\]\(/, "", target); sub(/\)$/, "", target)
      sub(/#.*/, "", target)
      if (target ~ /\.svg$/) sub(/.*\//, "", target)
      if (target ~ /\.(md|svg)$/ || target ~ /^https?:/) out = out "[" text "](" target ")"
      else out = out text
    }
    $0 = out $0
  }
  if (/^```/) fenced = !fenced
  print
}
