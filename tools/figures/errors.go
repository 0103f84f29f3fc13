package main

import (
	"go/ast"
	"regexp"
	"slices"
)

var (
	wrapping  = regexp.MustCompile(`%w|errors\.Wrapf?\(`)
	returning = regexp.MustCompile(`^\s*return (.*, )?err$`)
	lostChain = regexp.MustCompile(`fmt\.Errorf\(".*%v.*\berr\)`)
)

// errorLines counts, line by line, errors that are wrapped, returned bare, and whose chain is lost.
func errorLines(lines []string) (wrapped, bare, lost int) {
	for _, line := range lines {
		switch {
		case wrapping.MatchString(line):
			wrapped++
		case returning.MatchString(line):
			bare++
		case lostChain.MatchString(line):
			lost++
		}
	}

	return wrapped, bare, lost
}

// errorReturns counts what a function returns: new errors with words of their own, and errors as they came.
// What function literals in it return isn't its own.
func errorReturns(body *ast.BlockStmt) (worded, bare int) {
	ast.Inspect(body, func(n ast.Node) bool {
		if _, literal := n.(*ast.FuncLit); literal {
			return false
		}

		ret, ok := n.(*ast.ReturnStmt)
		if !ok || len(ret.Results) == 0 {
			return true
		}

		switch last := ret.Results[len(ret.Results)-1].(type) {
		case *ast.Ident:
			if last.Name == "err" {
				bare++
			}
		case *ast.CallExpr:
			if f, ok := last.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Errorf", "Wrap", "Wrapf"}, f.Sel.Name) {
				worded++
			}
		}

		return true
	})

	return worded, bare
}
