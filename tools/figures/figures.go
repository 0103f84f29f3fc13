package main

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// figures holds all that is measured of a tree.
type figures struct {
	codeLines, testLines, namedTestLines int // namedTestLines are those of code in folders whose names end in "test"
	fileLines, productionLines           []int
	functions                            []function
	productionFunctions                  []function
	packages, packagesWithDoc            int
	packageFiles, packageLines           []int
	docs                                 docs
	wrapped, bare, lost                  int
	exportedWorded, exportedBare         int
	suppressions                         int
	commentLines, longLines              int
	tests, subtests, sleeps              int
}

var (
	suppression = regexp.MustCompile(`//\s*nolint`)
	subtest     = regexp.MustCompile(`\bt\.Run\(`)
	sleep       = regexp.MustCompile(`\btime\.Sleep\(`)
)

// measureTree reads all Go files below root and measures them.
func measureTree(root string) (figures, error) {
	files, err := readTree(root)
	if err != nil {
		return figures{}, err
	}

	var (
		f    figures
		dirs []string
		code = map[string][]goFile{}
	)

	for _, file := range files {
		if file.test {
			f.addTest(file)

			continue
		}

		if code[file.dir] == nil {
			dirs = append(dirs, file.dir)
		}

		code[file.dir] = append(code[file.dir], file)
	}

	for _, dir := range dirs {
		f.addPackage(code[dir])
	}

	return f, nil
}

func (f *figures) addTest(file goFile) {
	f.testLines += len(file.lines)

	for _, line := range file.lines {
		f.subtests += len(subtest.FindAllString(line, -1))
		f.sleeps += len(sleep.FindAllString(line, -1))
	}

	for _, decl := range file.syntax.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && isRun(fn.Name.Name) {
			f.tests++
		}
	}
}

// isRun reports whether a function of this name is one that `go test` runs.
func isRun(name string) bool {
	return slices.ContainsFunc([]string{"Test", "Fuzz", "Benchmark", "Example"}, func(kind string) bool { return strings.HasPrefix(name, kind) })
}

func (f *figures) addPackage(files []goFile) {
	var (
		lines int
		doc   bool
		types = exportedTypes(files)
		// A package that only tests use, such as a contract suite.
		forTests = slices.ContainsFunc(folders(files[0].dir), func(f string) bool { return strings.HasSuffix(f, "test") })
	)

	for _, file := range files {
		lines += len(file.lines)
		doc = doc || file.syntax.Doc != nil

		f.fileLines = append(f.fileLines, len(file.lines))
		f.docs.read(file.syntax, types)
		f.addLines(file)

		functions := f.readFunctions(file)
		f.functions = append(f.functions, functions...)

		if forTests {
			f.namedTestLines += len(file.lines)

			continue
		}

		f.productionLines = append(f.productionLines, len(file.lines))
		f.productionFunctions = append(f.productionFunctions, functions...)
	}

	f.codeLines += lines
	f.packages++

	if doc {
		f.packagesWithDoc++
	}

	f.packageFiles = append(f.packageFiles, len(files))
	f.packageLines = append(f.packageLines, lines)
}

func (f *figures) readFunctions(file goFile) []function {
	var found []function

	for _, decl := range file.syntax.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}

		found = append(found, measure(file, fn))

		if fn.Name.IsExported() {
			worded, bare := errorReturns(fn.Body)
			f.exportedWorded += worded
			f.exportedBare += bare
		}
	}

	return found
}

func (f *figures) addLines(file goFile) {
	wrapped, bare, lost := errorLines(file.lines)
	f.wrapped += wrapped
	f.bare += bare
	f.lost += lost

	for _, line := range file.lines {
		if strings.HasPrefix(strings.TrimSpace(line), "//") {
			f.commentLines++
		}

		if len([]rune(strings.ReplaceAll(line, "\t", "    "))) > 120 {
			f.longLines++
		}

		f.suppressions += len(suppression.FindAllString(line, -1))
	}
}
