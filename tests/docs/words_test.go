package docs

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// source is a file of production code that a person wrote.
type source struct {
	path string
	file *ast.File
}

// sources returns all production code below some folders.
func sources(t *testing.T, dirs ...string) []source {
	t.Helper()

	var found []source

	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}

			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err == nil && !ast.IsGenerated(file) {
				rel, relErr := filepath.Rel(root, path)
				require.NoError(t, relErr)

				found = append(found, source{rel, file})
			}

			return err
		}))
	}

	require.NotEmpty(t, found)

	return found
}

// documented is a name that is declared, with what is said of it.
type documented struct {
	name     string
	doc      *ast.CommentGroup
	function bool // or a method
}

// declared returns all that a file declares at its top, and the fields and methods of its types.
func declared(file *ast.File) []documented {
	var found []documented

	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			found = append(found, documented{n.Name.Name, n.Doc, true})

			return false
		case *ast.GenDecl:
			for _, spec := range n.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok && t.Doc == nil {
					found = append(found, documented{t.Name.Name, n.Doc, false})
				} else if v, ok := spec.(*ast.ValueSpec); ok && v.Doc == nil {
					found = append(found, documented{v.Names[0].Name, n.Doc, false})
				}
			}
		case *ast.TypeSpec:
			found = append(found, documented{n.Name.Name, n.Doc, false})
		case *ast.ValueSpec:
			found = append(found, documented{n.Names[0].Name, n.Doc, false})
		case *ast.InterfaceType:
			found = append(found, members(n.Methods, true)...)
		case *ast.StructType:
			found = append(found, members(n.Fields, false)...)
		}

		return true
	})

	return found
}

func members(fields *ast.FieldList, methods bool) []documented {
	var found []documented

	for _, field := range fields.List {
		for _, name := range field.Names {
			found = append(found, documented{name.Name, field.Doc, methods})
		}
	}

	return found
}

// Go's comments say what a function returns and reports.
func TestCommentsSayReturnsAndReports(t *testing.T) {
	t.Parallel()

	for _, s := range sources(t, "cmd", "mover", "plugins", "tests", "tools") {
		for _, d := range declared(s.file) {
			for _, verb := range []string{"gives", "tells"} {
				assert.False(t, strings.HasPrefix(d.doc.Text(), d.name+" "+verb+" "),
					"%s: write what %s returns, or reports whether; not what it %s", s.path, d.name, verb)
			}
		}
	}
}

// participle is a word that says what was done to something, and neither what the function does nor what is so.
var participle = regexp.MustCompile(`^(?:[A-Z][a-z]+ed|Begun|Bound|Chosen|Done|Forgotten|Found|Frozen|Given|Gone|Held|Hidden|Kept|Known|Lost|Made|Seen|Shown|Taken|Told|Torn|Written)$`)

// needed are verbs that look like one.
var needed = []string{"Embed", "Exceed", "Feed", "Need", "Proceed", "Seed", "Succeed"}

func TestNoExportedFunctionIsABareParticiple(t *testing.T) {
	t.Parallel()

	var found []string

	for _, s := range sources(t, "cmd", "mover", "plugins") {
		for _, d := range declared(s.file) {
			if d.function && participle.MatchString(d.name) && !slices.Contains(needed, d.name) {
				found = append(found, s.file.Name.Name+"."+d.name)
			}
		}
	}

	shrinks(t, "participles.txt", found, "name it as a statement (IsFilled), by its noun, or by what it does")
}

// longest is how many characters `kubectl describe` can show of an event without a person losing the thread.
const longest = 160

// What the names in a message take comes on top, so that no test can hold all events to the bound; but a sentence
// that is longer by itself is.
func TestMessagesAreShort(t *testing.T) {
	t.Parallel()

	var found []string

	for _, s := range sources(t, "mover/app", "mover/controllers", "mover/engine", "mover/runner", "mover/state", "mover/worker", "plugins") {
		ast.Inspect(s.file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}

			text, ok := literal(e)
			if letters := []rune(text); ok && len(letters) > longest {
				found = append(found, string(letters[:60]))
			}

			return !ok
		})
	}

	shrinks(t, "long-messages.txt", found, "say object, fact and remedy in 160 characters, and the rest in docs/reasons.md")
}

// literal returns the text of a string that stands in the code, and of strings that are put together there. What
// isn't known yet is left out.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)

		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, isText := literal(e.X)
		right, isTextToo := literal(e.Y)

		return left + right, e.Op == token.ADD && (isText || isTextToo)
	case *ast.ParenExpr:
		return literal(e.X)
	}

	return "", false
}

// shrinks compares what was found with a list of what was there when the rule was made. The list never grows.
func shrinks(t *testing.T, list string, found []string, remedy string) {
	t.Helper()

	file, err := os.Open(filepath.Join("testdata", list))
	require.NoError(t, err)

	defer file.Close()

	var known []string

	for lines := bufio.NewScanner(file); lines.Scan(); {
		if line := lines.Text(); !strings.HasPrefix(line, "#") {
			known = append(known, line)
		}
	}

	for _, f := range found {
		assert.Contains(t, known, f, remedy)
	}

	for _, k := range known {
		assert.Contains(t, found, k, "it is no more: take the line out of tests/docs/testdata/%s", list)
	}
}
