# Doxygen's view of a public header: its plain comments as documentation. A comment stands above what
# it is about, or after it on the same line; one above several declarations without a blank line
# between them is about each. A destructor, or what is deleted, needs no comment and is left out.

# Macros belong to their file, so each file is documented.
FNR == 1 { print "/** @file */" }

# What is meant for a tool says nothing about a name.
{ sub(/ *\/\/ NOLINT.*/, "") }

# A specialisation for the standard library is of no name of ours.
/^template <>$/ { lines = in_block = 0; getline; next }

function indent_of(line) { match(line, /^ */); return RLENGTH }

function flush_doc(   i) { for (i = 1; i <= lines; i++) print doc[i] }

# A block of comment lines: kept until it is known what follows.
/^(  |    )?\/\/( |$)/ && !trailing {
  if (after_declaration || !in_block) { lines = 0; in_block = 1; after_declaration = 0 }
  sub(/\/\//, "///")
  doc[++lines] = $0
  next
}

# The rest of a comment that began after a declaration.
/^ *\/\/ / && trailing {
  sub(/\/\//, "///<")
  print
  next
}

{ trailing = 0 }

/^ *$/ {
  # A comment that nothing follows is about the file, or about what comes next in general.
  if (in_block) for (i = 1; i <= lines; i++) { sub(/\/\/\//, "//", doc[i]); print doc[i] }
  in_block = lines = after_declaration = 0
  open = 0
  print
  next
}

# Not said in a reference.
/^  (virtual )?~[A-Za-z]+\(\)( = default)?;$/ && !in_block { next }
/ = delete;$/ { next }

{
  depth = indent_of($0)
  if (in_block) {
    flush_doc()
    in_block = 0
    after_declaration = 1
  } else if (after_declaration && !open && depth <= 2 && $0 !~ /\/\/ / && $0 !~ /^ *[})]/) {
    flush_doc()
  }
  if ($0 !~ /^}/ && $0 ~ /[^ ].*\/\/ / && depth <= 2 && $0 !~ /"/) {
    sub(/\/\/ /, "///< ")
    trailing = 1
  }
  print
  code = $0
  sub(/ *\/\/.*/, "", code)
  # A declaration that goes on in the next line.
  open = code !~ /[;}]$/ && code !~ /^#/ && code !~ /^ *(public|private|protected):$/
  if (code ~ /^(class|struct|enum|template|namespace|#[^d])/ || code ~ /^ *(public|private|protected):$/) {
    lines = after_declaration = 0
    open = 0
  }
}
