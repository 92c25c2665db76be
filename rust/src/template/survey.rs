//! What a template mentions, found without running it.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::machinery::{Token, ast, parse, tokenize};

use super::edit::Edit;
use super::engine::{SYNTAX, environment, explain};
use super::part::Part;
use crate::bounds;
use crate::error::{Error, Result};
use crate::recipient::Origin;

/// Tokens in one template tag. The engine's compiler recurses per operator, so this bounds its stack.
pub(super) const MAX_TAG_TOKENS: usize = 1_000;
/// `elif` tags in one part; the compiler nests each in the one before.
pub(super) const MAX_ELIFS: usize = 200;
/// Names of attributes that one part may set on namespaces.
const MAX_SET_ATTRIBUTES: usize = 32;

/// What a template mentions, found without running it.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Every name that a lookup may ask for.
    pub(crate) names: BTreeSet<String>,
    /// Filters and tests, with the line of their first use.
    pub(super) filters: BTreeMap<String, u32>,
    pub(super) tests: BTreeMap<String, u32>,
    assigned: BTreeSet<String>,
    set_attributes: BTreeSet<String>,
    undeclared: BTreeSet<String>,
    /// The template as a list of steps, if it is only text and plain variables.
    pub(crate) steps: Option<Vec<Step>>,
    /// Where the engine's source gets the measuring filter.
    pub(super) measurements: Vec<Edit>,
}

/// One step of a template without control flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A byte range of the source, written as it is.
    Text(std::ops::Range<usize>),
    /// A variable, escaped as the part demands.
    Variable(String),
    /// `mailrail.t`.
    Track,
}

impl Survey {
    /// The names that have to come from outside.
    pub(super) fn asked(&self) -> BTreeSet<String> {
        let globals: BTreeSet<String> = environment().globals().map(|(name, _)| name.to_owned()).collect();
        let mentioned = self.names.iter().filter(|name| !self.assigned.contains(*name));
        let mut names: BTreeSet<String> = mentioned.chain(&self.undeclared).cloned().collect();
        names.retain(|name| Origin::of(name) != Origin::Mailrail && !globals.contains(name));
        names
    }

    /// Those that only a recipient's custom fields can fill.
    pub(super) fn undeclared(&self) -> impl Iterator<Item = String> {
        self.asked().into_iter().filter(|name| Origin::of(name) == Origin::Custom)
    }
}

/// Parses `source`, after refusing shapes whose compilation would need an unbounded stack.
pub(super) fn survey(part: Part, source: &str) -> Result<Survey> {
    refuse_deep_shapes(part, source)?;
    let tree = parse(source, part.name(), SYNTAX.clone()).map_err(|error| explain(part, &error))?;
    let mut survey = Survey::default();
    survey.statement(&tree);
    survey.steps = steps(&tree, source);
    survey.measurements = bounds::measurements(&tree, source);
    refuse_many_attributes(part, &survey)?;
    let mut environment = environment();
    environment.add_template_owned(part.name(), source.to_owned()).map_err(|error| explain(part, &error))?;
    if let Ok(template) = environment.get_template(part.name()) {
        survey.undeclared = template.undeclared_variables(false).into_iter().collect();
        let printed_globals = survey.steps.iter().flatten().any(
            |step| matches!(step, Step::Variable(name) if environment.globals().any(|(global, _)| global == name)),
        );
        if printed_globals {
            survey.steps = None;
        }
    }
    Ok(survey)
}

fn refuse_deep_shapes(part: Part, source: &str) -> Result<()> {
    let (mut in_tag, mut elifs, mut after_start) = (0, 0, false);
    for token in tokenize(source, false, SYNTAX.clone()) {
        let (token, span) = token.map_err(|error| explain(part, &error))?;
        match token {
            Token::BlockStart | Token::VariableStart => in_tag = 0,
            Token::Ident("elif") if after_start => elifs += 1,
            _ => in_tag += 1,
        }
        after_start = matches!(token, Token::BlockStart);
        if in_tag > MAX_TAG_TOKENS || elifs > MAX_ELIFS {
            let line = Some(u32::from(span.start_line));
            return Err(Error::template(part.name(), line, "this tag is too long"));
        }
    }
    Ok(())
}

/// A namespace can share one large value among all its attributes, so their number is bounded too.
fn refuse_many_attributes(part: Part, survey: &Survey) -> Result<()> {
    if survey.set_attributes.len() > MAX_SET_ATTRIBUTES {
        return Err(Error::template(part.name(), None, "too many attributes are set on namespaces"));
    }
    Ok(())
}

/// The step list of a template that is only text and plain variables. Its length is bounded such that the
/// fuel of [`MAX_FUEL`] cannot run out: a step costs at most 4 units and a byte of output 1/64.
fn steps(tree: &ast::Stmt<'_>, source: &str) -> Option<Vec<Step>> {
    const MAX_STEPS: usize = 10_000;
    let ast::Stmt::Template(template) = tree else { return None };
    if template.children.len() > MAX_STEPS {
        return None;
    }
    template.children.iter().map(|child| step(child, source)).collect()
}

fn step(statement: &ast::Stmt<'_>, source: &str) -> Option<Step> {
    match statement {
        ast::Stmt::EmitRaw(raw) => range_in(source.as_bytes(), raw.raw.as_bytes()).map(Step::Text),
        ast::Stmt::EmitExpr(emit) => match &emit.expr {
            ast::Expr::Var(variable) => Some(Step::Variable(variable.id.to_owned())),
            ast::Expr::GetAttr(get) => match &get.expr {
                ast::Expr::Var(variable) if variable.id == "mailrail" && get.name == "t" => Some(Step::Track),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Where `piece` lies in `whole`, if it is a slice of it.
pub(crate) fn range_in(whole: &[u8], piece: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = (piece.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(piece.len())?;
    (end <= whole.len()).then_some(start..end)
}

/// The walk over the syntax tree. It over-approximates: a name may be listed although a block declares it.
impl Survey {
    fn statements(&mut self, statements: &[ast::Stmt<'_>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) {
        match statement {
            ast::Stmt::Template(template) => self.statements(&template.children),
            ast::Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            ast::Stmt::EmitRaw(_) | ast::Stmt::Continue(_) | ast::Stmt::Break(_) => {}
            ast::Stmt::ForLoop(node) => {
                self.target(&node.target);
                self.assigned.insert("loop".to_owned());
                self.expression(&node.iter);
                self.optional(node.filter_expr.as_ref());
                self.statements(&node.body);
                self.statements(&node.else_body);
            }
            ast::Stmt::IfCond(node) => {
                self.expression(&node.expr);
                self.statements(&node.true_body);
                self.statements(&node.false_body);
            }
            ast::Stmt::WithBlock(node) => {
                for (target, expression) in &node.assignments {
                    self.target(target);
                    self.expression(expression);
                }
                self.statements(&node.body);
            }
            ast::Stmt::Set(node) => {
                self.target(&node.target);
                self.expression(&node.expr);
            }
            ast::Stmt::SetBlock(node) => {
                self.target(&node.target);
                self.optional(node.filter.as_ref());
                self.statements(&node.body);
            }
            ast::Stmt::AutoEscape(node) => {
                self.expression(&node.enabled);
                self.statements(&node.body);
            }
            ast::Stmt::FilterBlock(node) => {
                self.expression(&node.filter);
                self.statements(&node.body);
            }
            ast::Stmt::Macro(node) => self.macro_declaration(node),
            ast::Stmt::CallBlock(node) => {
                self.call(&node.call);
                self.macro_declaration(&node.macro_decl);
            }
            ast::Stmt::Do(node) => self.call(&node.call),
        }
    }

    fn macro_declaration(&mut self, node: &ast::Macro<'_>) {
        self.assigned.extend([node.name.to_owned(), "caller".to_owned()]);
        for argument in &node.args {
            self.target(argument);
        }
        for default in &node.defaults {
            self.expression(default);
        }
        self.statements(&node.body);
    }

    /// An assignment's left side. Names in it are declared by the template.
    fn target(&mut self, target: &ast::Expr<'_>) {
        match target {
            ast::Expr::Var(variable) => _ = self.assigned.insert(variable.id.to_owned()),
            ast::Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            ast::Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            ast::Expr::GetAttr(get) => {
                self.set_attributes.insert(get.name.to_owned());
                self.expression(&get.expr);
            }
            other => self.expression(other),
        }
    }

    fn optional(&mut self, expression: Option<&ast::Expr<'_>>) {
        if let Some(expression) = expression {
            self.expression(expression);
        }
    }

    fn expression(&mut self, expression: &ast::Expr<'_>) {
        match expression {
            ast::Expr::Var(variable) => _ = self.names.insert(variable.id.to_owned()),
            ast::Expr::Const(_) => {}
            ast::Expr::Slice(node) => {
                self.expression(&node.expr);
                for bound in [&node.start, &node.stop, &node.step] {
                    self.optional(bound.as_ref());
                }
            }
            ast::Expr::UnaryOp(node) => self.expression(&node.expr),
            ast::Expr::BinOp(node) => {
                self.expression(&node.left);
                self.expression(&node.right);
            }
            ast::Expr::Compare(node) => {
                self.expression(&node.expr);
                node.ops.iter().for_each(|operand| self.expression(&operand.expr));
            }
            ast::Expr::IfExpr(node) => {
                self.expression(&node.test_expr);
                self.expression(&node.true_expr);
                self.optional(node.false_expr.as_ref());
            }
            ast::Expr::Filter(node) => {
                let line = u32::from(node.span().start_line);
                self.filters.entry(without_whitespace(node.name)).or_insert(line);
                self.optional(node.expr.as_ref());
                self.arguments(&node.args);
            }
            ast::Expr::Test(node) => {
                let line = u32::from(node.span().start_line);
                self.tests.entry(without_whitespace(node.name)).or_insert(line);
                self.expression(&node.expr);
                self.arguments(&node.args);
            }
            ast::Expr::GetAttr(node) => self.expression(&node.expr),
            ast::Expr::GetItem(node) => {
                self.expression(&node.expr);
                self.expression(&node.subscript_expr);
            }
            ast::Expr::Call(node) => self.call(node),
            ast::Expr::List(node) => node.items.iter().for_each(|item| self.expression(item)),
            ast::Expr::Tuple(node) => node.items.iter().for_each(|item| self.expression(item)),
            ast::Expr::Map(node) => {
                node.keys.iter().chain(&node.values).for_each(|item| self.expression(item));
            }
        }
    }

    fn call(&mut self, call: &ast::Call<'_>) {
        self.expression(&call.expr);
        self.arguments(&call.args);
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) {
        for argument in arguments {
            match argument {
                ast::CallArg::Pos(expression)
                | ast::CallArg::Kwarg(_, expression)
                | ast::CallArg::PosSplat(expression)
                | ast::CallArg::KwargSplat(expression) => self.expression(expression),
            }
        }
    }
}

/// The engine looks filters and tests up without the blanks that its grammar allows in their names.
fn without_whitespace(name: &str) -> String {
    name.chars().filter(|character| !character.is_ascii_whitespace()).collect()
}
