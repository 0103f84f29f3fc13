package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// goFile is one file of Go source that a person wrote.
type goFile struct {
	dir    string // relative to the root
	test   bool
	lines  []string
	syntax *ast.File
	fset   *token.FileSet
}

// testFolders hold tests, whatever their files are called.
var testFolders = []string{"test", "tests", "testing", "testutil"}

// skippedFolders hold what others wrote, or what isn't compiled.
var skippedFolders = []string{"vendor", "third_party", "node_modules", "testdata"}

// readTree returns all Go files below root that were neither generated nor vendored.
func readTree(root string) ([]goFile, error) {
	var files []goFile

	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if entry.IsDir() {
			if name := entry.Name(); path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || slices.Contains(skippedFolders, name)) {
				return filepath.SkipDir
			}

			return nil
		}

		if !strings.HasSuffix(path, ".go") {
			return nil
		}

		file, err := readFile(root, path)
		if err == nil && !isGenerated(path, file.syntax) {
			files = append(files, file)
		}

		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the Go files below %s: %w", root, err)
	}

	return files, nil
}

func readFile(root, path string) (goFile, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return goFile{}, err
	}

	fset := token.NewFileSet()

	syntax, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return goFile{}, err
	}

	rel, err := filepath.Rel(root, path)
	if err != nil {
		return goFile{}, err
	}

	return goFile{
		dir: filepath.Dir(rel), test: isTest(rel), fset: fset, syntax: syntax,
		lines: strings.Split(strings.TrimSuffix(string(source), "\n"), "\n"),
	}, nil
}

func isGenerated(path string, syntax *ast.File) bool {
	return ast.IsGenerated(syntax) || strings.HasPrefix(filepath.Base(path), "zz_generated")
}

func isTest(rel string) bool {
	return strings.HasSuffix(rel, "_test.go") ||
		slices.ContainsFunc(folders(filepath.Dir(rel)), func(f string) bool { return slices.Contains(testFolders, f) })
}

func folders(dir string) []string {
	return strings.Split(filepath.ToSlash(dir), "/")
}

// span returns how many lines a node covers.
func (f goFile) span(node ast.Node) int {
	return f.fset.Position(node.End()).Line - f.fset.Position(node.Pos()).Line + 1
}
